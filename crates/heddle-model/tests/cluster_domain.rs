//! Names of a cluster whose domain is not `cluster.local`: a process of its own, since a process has one domain.

use heddle_model::{
    ServiceName,
    name::{NameError, service_suffix, set_cluster_domain},
};

#[test]
fn names_are_read_and_written_below_the_domain_that_was_said_first() {
    assert!(matches!(set_cluster_domain("Corp_Test"), Err(NameError::NotASubdomain(_))));
    set_cluster_domain("corp.test").unwrap();
    set_cluster_domain("corp.test").unwrap();
    assert_eq!(service_suffix(), "svc.corp.test");

    let reviews = ServiceName::new("reviews", "shop").unwrap();
    assert_eq!(reviews.fqdn(), "reviews.shop.svc.corp.test");
    for host in ["reviews", "reviews.shop", "reviews.shop.svc", "Reviews.shop.svc.corp.test."] {
        assert_eq!(ServiceName::resolve(host, "shop").unwrap(), reviews, "{host}");
    }
    let foreign = ServiceName::resolve("reviews.shop.svc.cluster.local", "shop").unwrap_err();
    assert!(foreign.to_string().ends_with("NAME.NAMESPACE.svc.corp.test"), "{foreign}");
    assert!(ServiceName::resolve("reviewssvc.corp.test", "shop").is_err());

    let other = set_cluster_domain("cluster.local").unwrap_err();
    assert!(other.to_string().contains("below `svc.corp.test`"), "{other}");
}
