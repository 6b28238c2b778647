//! What a control plane owes its store.

use std::collections::BTreeMap;

use heddle_model::ServiceName;
use heddle_testkit::folder::Folder;

use super::*;
use crate::{
    config::AddressRanges, generations::Generations, registry::Members, rules::Rules,
    store::STORE_FILE,
};

#[tokio::test]
async fn what_the_store_did_not_take_at_start_is_written_later() {
    let folder = Folder::new("owed");
    let ranges = AddressRanges::default();
    let settings = ranges.settings("test".to_owned());
    let members = Members::new(ranges, &BTreeMap::new(), 0);
    let mesh = Mesh::new(settings, members.into(), Rules::default(), Generations::after(0));
    let name = ServiceName::new("reviews", "default").unwrap();
    let error = StoreError::InUse { path: folder.join(STORE_FILE) };
    let unwritten = (error, vec![Change::Vip(name.clone(), Some(17))]);
    let store = Store::open(folder.path()).unwrap();
    let journal = Journal::new(folder.path(), "1@2".to_owned());
    let control = Control::new(mesh, store, journal, Some(unwritten));
    assert!(control.troubles().store.is_some());
    control.persist(Vec::new()).await.unwrap();
    assert!(control.troubles().store.is_none());
    drop(control);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.content().vips.get(&name), Some(&17));
}
