//! What stays: the processes of a site, their memory, and the tools' size on disk.

use std::collections::BTreeMap;
use std::fs;

use crate::promises::Promises;
use crate::site::Site;
use crate::{memory, note, print_table, row, warm_site};

/// Resident memory of supervise, in kB.
const SUPERVISE_LIMIT: u64 = 2048;

pub fn measure(promises: &mut Promises) {
    note("footprint");
    let site = warm_site("");
    site.run("rollback", &[]).ok();
    processes(&site, promises);
    sizes(&site);
}

/// All processes of the site after two deploys and a rollback, by name.
fn processes(site: &Site, promises: &mut Promises) {
    let [mut resident, mut own] = [(); 2].map(|()| BTreeMap::<String, Vec<u64>>::new());
    for pid in site.processes() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        resident.entry(name.clone()).or_default().push(memory::of(pid, "Rss:"));
        own.entry(name).or_default().push(memory::of(pid, "Private_Clean:") + memory::of(pid, "Private_Dirty:"));
    }
    let heading = ["", "processes", "resident memory, the largest", "of it not shared", "limit", ""];
    let mut rows = vec![row(heading)];
    for (name, sizes) in &resident {
        let (largest, count) = (sizes.iter().max().copied().unwrap_or(0), sizes.len());
        let (limit, verdict) = match name.as_str() {
            "supervise" => {
                let verdict = promises.judge("supervise: under 2 MB resident", largest < SUPERVISE_LIMIT);
                (format!("{SUPERVISE_LIMIT} kB"), verdict)
            }
            _ => (String::new(), ""),
        };
        let own = own[name].iter().max().copied().unwrap_or(0);
        rows.push(row([name, &count.to_string(), &format!("{largest} kB"), &format!("{own} kB"), &limit, verdict]));
    }
    let count = |name: &str| resident.get(name).map_or(0, Vec::len);
    let kept = ["supervise", "leash", "app"].iter().all(|name| count(name) == 2);
    let is_all = resident.len() == 4 && count("nginx") > 1 && kept;
    let verdict = promises.judge("nothing else is resident", is_all);
    rows.push(row(["nothing but nginx, two supervises with their leashes, two apps", "", "", "", "", verdict]));
    print_table("What stays running, after two deploys and a rollback", &rows);
}

fn sizes(site: &Site) {
    let mut tools: Vec<(String, u64)> = fs::read_dir(site.home.join("bin"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.metadata().unwrap().len()))
        .collect();
    tools.sort();
    tools.push(("all".to_owned(), tools.iter().map(|(_, size)| size).sum()));
    let mut rows = vec![row(["", "bytes"])];
    rows.extend(tools.iter().map(|(name, size)| row([name, &size.to_string()])));
    print_table("The tools' size", &rows);
}
