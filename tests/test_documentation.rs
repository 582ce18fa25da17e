//! The documentation agrees with the tools: their flags, their exit codes, the configuration's keys and defaults. Its links
//! lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cutover::app::Config;

use crate::site::built;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// The paths of the Markdown files in a directory of the project, sorted.
fn markdown_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(project().join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| directory.to_owned() + &name).collect();
    assert!(!paths.is_empty(), "{directory} has no pages");
    paths.sort();
    paths
}

/// The README and its pages.
fn readme_and_pages() -> Vec<String> {
    let mut paths = vec!["README.md".to_owned()];
    paths.extend(markdown_in("docs/"));
    paths
}

/// The text of a page without its fenced blocks.
fn prose(page: &str) -> String {
    let text = read(page);
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    });
    let lines: Vec<&str> = lines.collect();
    assert!(!fenced, "{page} has a fence without its end");
    lines.join("\n")
}

/// The targets of a page's links that lead to files or headings of the project.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The anchors that a page's headings get where Markdown is shown: lower case, dashes for spaces, no punctuation.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(project().join(directory)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn tools() -> Vec<String> {
    names_in("src/bin")
}

fn page(tool: &str) -> String {
    read(&format!("man/{tool}.1"))
}

/// The lines of a page's section, without its heading.
fn section<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| *line != format!(".Sh {heading}")).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with(".Sh ")).collect();
    assert!(!lines.is_empty(), "there is no section {heading}");
    lines
}

/// What mdoc's words for options and arguments say: `Fl -ref Ar REF` is `--ref REF`.
fn options_of<'a>(macros: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in macros {
        let mut words = line.split_whitespace().map(|word| word.trim_start_matches('.')).peekable();
        while let Some(word) = words.next() {
            let option = match word {
                "Fl" => format!("-{}", words.next().unwrap()),
                "Ar" => words.next().unwrap().to_owned(),
                _ => continue,
            };
            let value = if word == "Fl" { words.next_if_eq(&"Ar").and_then(|_| words.next()) } else { None };
            found.insert(value.map_or(option.clone(), |value| format!("{option} {value}")));
        }
    }
    found
}

/// What `--help` lists: flags with their values, and arguments by their names.
fn options_in_help(tool: &str) -> BTreeSet<String> {
    let output = Command::new(built().join(tool)).arg("--help").output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let mut found = BTreeSet::new();
    for line in help.lines().map(str::trim_start) {
        let signature = line.split("  ").next().unwrap().replace(['<', '>', '[', ']'], "");
        if line.starts_with('-') {
            let (flags, value) = match signature.rsplit_once(' ') {
                Some((flags, value)) if !value.starts_with('-') => (flags, Some(value)),
                _ => (signature.as_str(), None),
            };
            let flags: Vec<&str> = flags.split(", ").collect();
            let last = flags.len() - 1;
            for (at, flag) in flags.iter().enumerate() {
                let value = value.filter(|_| at == last).map_or_else(String::new, |value| format!(" {value}"));
                found.insert(format!("{flag}{value}"));
            }
        } else if line.starts_with(['<', '[']) {
            found.insert(signature);
        }
    }
    assert!(found.contains("--help"), "cannot read the help of {tool}: {help}");
    found
}

/// The exit codes that a list in a page holds, in its order.
fn exit_codes(page: &str) -> Vec<u8> {
    let items = section(page, "EXIT STATUS").into_iter().filter_map(|line| line.strip_prefix(".It "));
    items.map(|code| code.parse().unwrap_or_else(|_| panic!("{code:?} is no exit code"))).collect()
}

/// The numbers of `outcome::Exit`, as its source gives them.
fn exit_codes_in_source() -> Vec<u8> {
    let source = read("src/outcome.rs");
    let (_, from_enum) = source.split_once("pub enum Exit {").unwrap();
    let (body, _) = from_enum.split_once('}').unwrap();
    let variants = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    variants.filter_map(|line| line.split_once(" = ")?.1.trim_end_matches(',').parse().ok()).collect()
}

#[test]
fn each_tool_has_its_page_and_each_page_its_tool() {
    let mut expected = tools();
    expected.extend(["cutover".to_owned(), "cutover-config".to_owned()]);
    expected.sort();
    assert_eq!(names_in("man"), expected);
}

#[test]
fn a_pages_name_is_its_tools_first_line() {
    for tool in tools() {
        let source = read(&format!("src/bin/{tool}.rs"));
        let said = source.lines().next().unwrap().strip_prefix("//! ").unwrap();
        let name: Vec<String> = section(&page(&tool), "NAME").into_iter().map(str::to_owned).collect();
        assert_eq!(name[0], format!(".Nm {tool}"));
        let described = name[1].strip_prefix(".Nd ").unwrap();
        assert_eq!(format!("{tool}: {described}."), said);
    }
}

#[test]
fn a_pages_options_are_those_of_the_help() {
    for tool in tools() {
        let page = page(&tool);
        let items = section(&page, "OPTIONS").into_iter().filter(|line| line.starts_with(".It "));
        let mut described = options_of(items);
        let mut offered = options_in_help(&tool);
        assert_eq!(described, offered, "of {tool}");

        // The synopsis leaves out what only explains, and may use a short form.
        for explains in ["-h", "--help", "-V", "--version"] {
            described.remove(explains);
            offered.remove(explains);
        }
        let synopsis = options_of(section(&page, "SYNOPSIS").into_iter());
        let long_form = BTreeMap::from([("-f", "--follow"), ("-n COUNT", "--lines COUNT"), ("-t", "--timestamps")]);
        let synopsis: BTreeSet<&str> =
            synopsis.iter().map(|option| *long_form.get(option.as_str()).unwrap_or(&option.as_str())).collect();
        let expected: BTreeSet<&str> =
            offered.iter().map(String::as_str).filter(|option| !["-f", "-n", "-t"].contains(option)).collect();
        assert_eq!(synopsis, expected, "in the synopsis of {tool}");
    }
}

/// The codes of the README's table.
fn exit_codes_in_readme() -> Vec<u8> {
    let readme = read("README.md");
    let (_, table) = readme.split_once("## Exit codes\n").unwrap();
    let rows = table.lines().take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("| "));
    rows.filter_map(|row| row.split(' ').next()?.parse().ok()).collect()
}

#[test]
fn the_ssm_document_lists_the_readmes_exit_codes() {
    let document: serde_json::Value = serde_json::from_str(&read("ssm/cutover.json")).unwrap();
    let (_, list) = document["description"].as_str().unwrap().split_once("exit code: ").unwrap();
    let codes = list.trim_end_matches('.').split(", ").filter_map(|item| item.split(' ').next()?.parse().ok());
    // 1 is an answer of tools that the document does not run, and of a rollback.
    assert_eq!(codes.collect::<Vec<u8>>(), exit_codes_in_readme());
}

#[test]
fn all_pages_and_the_readme_know_the_same_exit_codes() {
    let known = exit_codes_in_source();
    assert!(known.contains(&0) && known.len() > 4, "cannot read the exit codes of src/outcome.rs: {known:?}");
    assert_eq!(exit_codes(&read("man/cutover.7")), known);
    assert_eq!(exit_codes_in_readme(), known);
    for tool in tools() {
        let codes = exit_codes(&page(&tool));
        assert!(codes.is_sorted() && codes.iter().all(|code| known.contains(code)), "{tool}: {codes:?}");
        assert!([0, 2, 3].iter().all(|common| codes.contains(common)), "{tool}: {codes:?}");
        let waits = options_in_help(&tool).contains("--wait");
        assert!(!waits || codes.contains(&75), "{tool} takes the lock: {codes:?}");
    }
}

#[test]
fn the_readme_and_the_overview_name_each_tool() {
    let (readme, overview) = (read("README.md"), read("man/cutover.7"));
    for tool in tools() {
        assert_eq!(readme.matches(&format!("\n| `{tool}` | ")).count(), 1, "{tool} in the README's table");
        let is_item = |line: &&str| line.starts_with(".It Ic ") && line.split([' ', ',']).any(|word| word == tool);
        assert_eq!(overview.lines().filter(is_item).count(), 1, "{tool} in cutover(7)");
        assert!(overview.contains(&format!(".Xr cutover-{tool} 1")), "{tool} in cutover(7)'s SEE ALSO");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 250, "README.md has {lines} lines: move some of it to a page in docs");
}

/// What is the same in each language of the README: blocks of code, words of code, links, numbers, and how many sections there are.
fn bones(page: &str) -> (Vec<String>, [Vec<String>; 3], usize) {
    let text = read(page);
    let is_code = |line: &&str| line.starts_with("    ");
    let fenced = text.split("```").skip(1).step_by(2).map(str::to_owned);
    let prose = prose(page);
    let blocks = fenced.chain(prose.lines().filter(is_code).map(str::to_owned)).collect();
    let prose = prose.lines().filter(|line| !is_code(line)).collect::<Vec<&str>>().join("\n");
    let mut words: Vec<String> = prose.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let mut links = links(page);
    links.retain(|link| !link.starts_with("README"));
    let said: String = prose.split('`').step_by(2).flat_map(|part| part.split("](").map(after_link)).collect();
    let numbers = regex::Regex::new(r"[0-9]+(\.[0-9]+)*").unwrap();
    let mut numbers: Vec<String> = numbers.find_iter(&said).map(|number| number.as_str().to_owned()).collect();
    [&mut words, &mut links, &mut numbers].into_iter().for_each(|all| all.sort());
    (blocks, [words, links, numbers], text.matches("\n## ").count())
}

/// What follows the target of a link, when this is the part behind its `](`.
fn after_link(part: &str) -> &str {
    part.split_once(')').filter(|(target, _)| !target.contains([' ', '\n'])).map_or(part, |(_, rest)| rest)
}

#[test]
fn the_korean_readme_has_the_same_commands_names_links_and_figures() {
    let (blocks, lists, sections) = bones("README.md");
    assert!(blocks.len() > 30 && lists.iter().all(|list| list.len() > 10), "{lists:?}");
    let (korean_blocks, korean_lists, korean_sections) = bones("README.ko.md");
    assert_eq!(korean_blocks, blocks);
    assert_eq!(korean_lists, lists);
    assert_eq!(korean_sections, sections);
}

#[test]
fn the_readme_links_each_page() {
    let linked: BTreeSet<String> = links("README.md").into_iter().collect();
    let missing: Vec<String> = markdown_in("docs/").into_iter().filter(|page| !linked.contains(page)).collect();
    assert_eq!(missing, Vec::<String>::new(), "README.md has no link to these pages");
}

#[test]
fn each_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in markdown_in("").into_iter().chain(markdown_in("docs/")) {
        for link in links(&page) {
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, to)| (path, Some(to)));
            let target = if path.is_empty() { page.clone() } else { place_of(&page, path) };
            let there = project().join(&target).exists()
                && anchor.is_none_or(|anchor| target.ends_with(".md") && anchors(&target).contains(anchor));
            if !there {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// The place in the project to which a relative path on a page leads.
fn place_of(page: &str, path: &str) -> String {
    let mut place: Vec<&str> = page.split('/').collect();
    place.pop();
    for part in path.split('/') {
        match part {
            ".." => assert!(place.pop().is_some(), "{path} on {page} leaves the project"),
            part => place.push(part),
        }
    }
    place.join("/")
}

#[test]
fn the_tests_and_sources_that_the_pages_name_are_there() {
    for page in markdown_in("").into_iter().chain(markdown_in("docs/")) {
        let text = read(&page);
        let named = text.split('`').filter(|word| word.starts_with("tests/") || word.starts_with("src/"));
        let missing: Vec<&str> = named.filter(|path| !project().join(path).exists()).collect();
        assert_eq!(missing, Vec::<&str>::new(), "in {page}");
    }
}

#[test]
fn the_packages_take_each_page() {
    let makefile = read("Makefile");
    let recipe = |target: &str| {
        let (_, from) = makefile.split_once(&format!("\n{target}: ")).unwrap();
        from.lines().skip(1).take_while(|line| line.starts_with('\t')).collect::<Vec<&str>>().join("\n")
    };
    let (install, dist) = (recipe("install"), recipe("dist"));
    let words = |recipe: &str| recipe.split_whitespace().map(str::to_owned).collect::<BTreeSet<String>>();
    assert!(install.contains("install -m 644 $(wildcard docs/*.md) $(DESTDIR)"), "{install}");
    assert!(words(&dist).contains("docs"), "{dist}");
    for page in markdown_in("") {
        assert!(words(&install).contains(&page) && words(&dist).contains(&page), "the packages lack {page}");
    }
}

/// A table of the configuration, and what cutover-config(5) says each of its keys is by default; None: it has none.
type Documented = BTreeMap<(String, String), Option<String>>;

fn documented_keys() -> Documented {
    let mut found = Documented::new();
    let mut table = String::new();
    for line in section(&read("man/cutover-config.5"), "DESCRIPTION") {
        if let Some(heading) = line.strip_prefix(".Ss ") {
            table = heading.to_owned();
        }
        let Some((key, default)) = line.strip_prefix(".It Ic ").and_then(|item| item.split_once(" No = ")) else {
            continue;
        };
        let value = default.strip_prefix("Li ").map(|value| value.replace("\\(dq", "\""));
        assert!(value.is_some() || default.ends_with("required") || default.ends_with("optional"), "{line}");
        let table = if table.starts_with('[') { table.trim_matches(['[', ']']) } else { "" };
        found.insert((table.to_owned(), key.to_owned()), value);
    }
    found
}

/// The line that begins a table.
fn heading(table: &str) -> String {
    match table {
        "" => String::new(),
        "worker" => "[[worker]]\n".to_owned(),
        table => format!("[{table}]\n"),
    }
}

/// The keys that the parser expects in a table, as its complaint about another one lists them; empty for what is no
/// table, or has keys of the user's choice.
fn expected_keys(table: &str) -> Vec<String> {
    let heading = heading(table);
    let complaint = Config::parse(&format!("{heading}surely-unknown = 1\n")).unwrap_err();
    let Some((_, expected)) = complaint.split_once("unknown key `surely-unknown`, expected ") else {
        return Vec::new();
    };
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_configurations_page_knows_each_key_and_no_other() {
    let mut expected = BTreeSet::new();
    for top in expected_keys("") {
        let keys = expected_keys(&top);
        match (top.as_str(), keys.is_empty()) {
            ("instances", _) => expected.extend(["A", "B"].map(|name| (top.clone(), name.to_owned()))),
            (_, true) => expected.extend([(String::new(), top)]),
            (_, false) => expected.extend(keys.into_iter().map(|key| (top.clone(), key))),
        }
    }
    assert!(expected.len() > 20, "cannot read the parser's complaint: {expected:?}");
    let documented: BTreeSet<(String, String)> = documented_keys().into_keys().collect();
    assert_eq!(documented, expected);
}

/// The least configuration, with these lines put into its tables.
fn configuration(more: &BTreeMap<&str, String>) -> Result<String, String> {
    let mut tables = BTreeMap::from([
        ("", "app = \"shop\"\n"),
        ("source", "git = \"x\"\n"),
        ("run", "command = \"x\"\n"),
        ("push", "repository = \"x/y\"\n"),
    ]);
    match more.contains_key("compose") {
        true => tables.insert("compose", "image_variable = \"X\"\nimage = \"x\"\n"),
        // They are not for containers.
        false => tables.insert("worker", "name = \"x\"\ncommand = \"x\"\n"),
    };
    for table in more.keys() {
        tables.entry(table).or_insert("");
    }
    let with_more = |table: &str| more.get(table).map_or("", String::as_str);
    let text: String =
        tables.iter().map(|(table, lines)| format!("{}{lines}{}", heading(table), with_more(table))).collect();
    Config::parse(&text).map(|config| format!("{:?}", Config { text: String::new(), ..config }))
}

#[test]
fn each_documented_default_is_what_leaving_the_key_out_means() {
    let documented = documented_keys();
    let default_of =
        |table: &str, key: &str| documented.get(&(table.to_owned(), key.to_owned())).cloned().flatten().unwrap();
    for ((table, key), default) in &documented {
        let lines = match (table.as_str(), default) {
            (_, None) => continue,
            ("instances", _) => {
                format!("A = {}\nB = {}\n", default_of("instances", "A"), default_of("instances", "B"))
            }
            (_, Some(value)) => format!("{key} = {value}\n"),
        };
        let kind = if table == "compose" { "compose" } else { "" };
        let least = configuration(&BTreeMap::from([(kind, String::new())])).unwrap();
        let with_default = configuration(&BTreeMap::from([(table.as_str(), lines)]));
        assert_eq!(with_default, Ok(least), "the default of {key} in [{table}]");
    }
}

#[test]
fn a_key_is_called_required_exactly_when_it_is() {
    let page = read("man/cutover-config.5");
    let required: Vec<&str> = page.lines().filter(|line| line.ends_with(" required")).collect();
    assert_eq!(required.len(), 6, "{required:?}");
    let processes = "app = \"x\"\n[source]\ngit = \"x\"\n[run]\ncommand = \"x\"\n";
    let workers =
        "app = \"x\"\n[source]\ngit = \"x\"\n[run]\ncommand = \"x\"\n[[worker]]\nname = \"x\"\ncommand = \"x\"\n";
    let containers = "app = \"x\"\n[compose]\nimage_variable = \"X\"\nimage = \"x\"\n";
    for least in [processes, workers, containers] {
        assert!(Config::parse(least).is_ok());
    }
    for line in required {
        let key = line.split_whitespace().nth(2).unwrap();
        let is_it = |line: &&str| line.starts_with(&format!("{key} ="));
        for least in [processes, workers, containers].iter().filter(|least| least.lines().any(|line| is_it(&line))) {
            let text: Vec<&str> = least.lines().filter(|line| !is_it(line)).collect();
            let error = Config::parse(&text.join("\n")).unwrap_err();
            assert!(error.contains(&format!("missing key `{key}`")), "{error}");
        }
    }
}

#[test]
fn the_examples_of_configurations_are_valid() {
    let (manual, file) = (read("man/cutover-config.5"), read("examples/push-server.toml"));
    let pages: String = readme_and_pages().iter().map(|page| read(page)).collect();
    let in_pages = pages.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let in_manual = manual.split(".Bd -literal -offset indent\n").skip(1).filter_map(|rest| rest.split(".Ed").next());
    let examples: Vec<&str> =
        in_pages.chain(in_manual.filter(|example| example.starts_with("app = "))).chain([file.as_str()]).collect();
    assert!(examples.len() >= 24, "only {} examples were found", examples.len());
    for example in examples {
        Config::parse(example).unwrap_or_else(|error| panic!("{error} in {example}"));
    }
}

#[test]
fn the_pages_are_good_mdoc() {
    let pages: Vec<PathBuf> = fs::read_dir(project().join("man")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let linted = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(pages).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&linted.stdout), "");
}

#[test]
fn make_quick_runs_a_test_of_each_tool() {
    let makefile = read("Makefile");
    let listed = makefile.split("\nQUICK = ").nth(1).unwrap().split("\n\n").next().unwrap();
    let mut tested = Vec::new();
    for path in listed.split_whitespace().filter(|word| *word != "\\") {
        let (module, test) = path.split_once("::").unwrap();
        assert!(read(&format!("tests/{module}.rs")).contains(&format!("#[test]\nfn {test}()")), "{path}");
        tested.push(module.trim_start_matches("test_").replace('_', "-"));
    }
    assert_eq!(tested, tools());
}

#[test]
fn each_library_is_listed_with_its_version_and_comes_from_the_registry() {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let text = |package: &toml::Value, key: &str| package.get(key).and_then(|value| value.as_str().map(str::to_owned));
    for package in packages.iter().filter(|package| text(package, "name").as_deref() != Some("cutover")) {
        let source = text(package, "source").unwrap_or_default();
        assert!(source.starts_with("registry+") && text(package, "checksum").is_some(), "{package}");
    }
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let wanted: BTreeSet<String> = manifest["dependencies"].as_table().unwrap().keys().cloned().collect();
    let locked = |name: &String| {
        let found = packages.iter().filter(|package| text(package, "name").as_ref() == Some(name));
        let versions: Vec<String> = found.map(|package| text(package, "version").unwrap()).collect();
        versions.iter().map(|version| version.split('+').next().unwrap().to_owned()).collect::<Vec<String>>()
    };
    let page = read("SECURITY.md");
    let rows = page.lines().skip_while(|line| *line != "| library | version | for |").skip(2);
    let mut listed = BTreeSet::new();
    for row in rows.take_while(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (names, versions) = (cells[1].split(", "), cells[2].split(", "));
        assert!(!cells[3].is_empty(), "{row}");
        for (name, version) in names.zip(versions) {
            assert!(
                locked(&name.to_owned()).contains(&version.to_owned()),
                "{name} {version}: {:?}",
                locked(&name.to_owned())
            );
            listed.insert(name.to_owned());
        }
    }
    assert_eq!(listed, wanted);
}
