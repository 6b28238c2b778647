//! What this crate's own tests share with others, under short names.

pub(crate) use heddle_testkit::{control, fixture::proxy_config, folder::Folder, resources};
