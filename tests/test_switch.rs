//! The foundation: a deploy, another one, a rollback, each answered by the right version.

use crate::site::{Sample, Site};

#[test]
fn a_second_deploy_switches_and_a_rollback_switches_back() {
    let site = Site::new(Sample::Static, "");
    assert_eq!(site.run("enabled-instance", &[]).code, 1);
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    site.run("enabled-instance", &[]).is(0, "B\n", "");
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("enabled-instance", &[]).is(0, "A\n", "");
}
