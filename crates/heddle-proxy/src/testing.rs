//! What this crate's own tests share with others, under short names.

pub(crate) use heddle_testkit::{
    control,
    fixture::{self, proxy_config},
    folder::Folder,
    resources,
};
