//! enabled-instance: the instance that gets the traffic, or no.

use crate::bare_home;
use crate::site::{BRISK, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("enabled-instance", "Print the instance that gets the traffic");
}

#[test]
fn it_finds_its_home_by_flag_by_variable_and_by_its_own_place() {
    bare_home::finds_its_home("enabled-instance", |number| format!("A{number}\n"));
}

#[test]
fn it_says_what_is_wrong_in_one_line() {
    bare_home::says_what_is_wrong("enabled-instance");
}

#[test]
fn nothing_is_enabled_before_the_first_deploy_then_each_deploy_enables_the_other() {
    let site = Site::new(Sample::Static, BRISK);

    site.run("enabled-instance", &[]).is(1, "", "");
    site.run("deploy", &[]).ok();
    site.run("enabled-instance", &[]).is(0, "A\n", "");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site.run("enabled-instance", &[]).is(0, "B\n", "");
}
