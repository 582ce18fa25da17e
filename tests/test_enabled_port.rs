//! enabled-port: the port of the instance that gets the traffic, or no.

use crate::bare_home;
use crate::site::{BRISK, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("enabled-port", "Print the port of the instance that gets the traffic");
}

#[test]
fn it_finds_its_home_by_flag_by_variable_and_by_its_own_place() {
    bare_home::finds_its_home("enabled-port", |number| format!("20{number}01\n"));
}

#[test]
fn it_says_what_is_wrong_in_one_line() {
    bare_home::says_what_is_wrong("enabled-port");
}

#[test]
fn no_port_is_enabled_before_the_first_deploy_then_each_deploy_enables_the_other() {
    let site = Site::new(Sample::Static, BRISK);
    let (first, second) = (format!("{}\n", site.ports.first), format!("{}\n", site.ports.second));
    site.run("enabled-port", &[]).is(1, "", "");
    site.run("deploy", &[]).ok();
    site.run("enabled-port", &[]).is(0, &first, "");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site.run("enabled-port", &[]).is(0, &second, "");
}
