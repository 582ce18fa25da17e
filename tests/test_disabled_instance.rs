//! disabled-instance: the instance that gets no traffic; there always is one.

use crate::bare_home;
use crate::site::{BRISK, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself(
        "disabled-instance",
        "Print the instance that gets no traffic; the first one when nothing is enabled",
    );
}

#[test]
fn it_finds_its_home_by_flag_by_variable_and_by_its_own_place() {
    bare_home::finds_its_home("disabled-instance", |number| format!("B{number}\n"));
}

#[test]
fn it_says_what_is_wrong_in_one_line() {
    bare_home::says_what_is_wrong("disabled-instance");
}

#[test]
fn the_first_is_disabled_before_the_first_deploy_then_each_deploy_disables_the_other() {
    let site = Site::new(Sample::Static, BRISK);

    site.run("disabled-instance", &[]).is(0, "A\n", "");
    site.run("deploy", &[]).ok();
    site.run("disabled-instance", &[]).is(0, "B\n", "");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site.run("disabled-instance", &[]).is(0, "A\n", "");
}
