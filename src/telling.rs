//! Which of the lines that a program has printed last say what is wrong, as a person looks for it: not where in the code that was,
//! nor where more about it is to be found.

/// How npm begins its lines.
const NPM: [&str; 2] = ["npm error", "npm ERR!"];
/// How lines begin that npm prints whatever has failed, behind that.
const OF_NPM: [&str; 17] = [
    "A complete log of this run",
    "Run \"npm help",
    "[-",
    "Options:",
    "Usage:",
    "aliases:",
    "alias:",
    "Lifecycle script",
    "Clean install a",
    "npm ",
    "workspace ",
    "location ",
    "path ",
    "errno ",
    "command ",
    "cwd ",
    "This is probably not a problem with npm",
];
/// How lines begin that other programs print behind, or before, the one that counts.
const OF_ALL: [&str; 20] = [
    "Node.js v",
    "node:internal/",
    "throw err;",
    "Require stack:",
    "requireStack: [",
    "Traceback (most recent call last)",
    "Stack trace:",
    "stack backtrace:",
    "note: run with `RUST_BACKTRACE",
    "note: Some details are omitted",
    "goroutine ",
    "error Command failed with exit code",
    "info Visit https://yarnpkg.com",
    "ELIFECYCLE",
    "\u{2009}ELIFECYCLE",
    "(Use `node --trace",
    "(node:",
    "thrown in ",
    "- /",
    "'/",
];
/// How the indented lines of a stack begin: JavaScript's, Java's and .NET's, Ruby's, Python's.
const OF_STACKS: [&str; 4] = ["at ", "from ", "... ", "File \""];

/// Those of some lines that may say what is wrong. Behind what npm calls its usage comes a page of that.
pub fn telling<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let usage = lines.iter().position(|line| said_by_npm(line) == Some("Usage:")).unwrap_or(lines.len());
    let is_usage = |at: usize, line: &str| at >= usage && said_by_npm(line).is_some();
    let kept = lines.iter().enumerate().filter(|(at, line)| !is_usage(*at, line) && is_telling(line));
    kept.map(|(_, line)| *line).collect()
}

/// What npm says in a line; None: the line is not one of its own.
fn said_by_npm(line: &str) -> Option<&str> {
    NPM.iter().find_map(|npm| line.trim().strip_prefix(npm)).map(str::trim)
}

/// Whether a line may say what is wrong.
pub fn is_telling(line: &str) -> bool {
    let text = line.trim();
    let is_indented = line.starts_with([' ', '\t']);
    if let Some(said) = said_by_npm(line) {
        let is_code = said.strip_prefix("code ").is_some_and(|code| {
            code.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit()) || code == "ELIFECYCLE"
        });
        return !said.is_empty() && !is_code && !OF_NPM.iter().any(|usual| said.starts_with(usual));
    }
    let is_punctuation = text.bytes().all(|byte| b"{}[]()<>,;^~|=-_. ".contains(&byte));
    let is_of_stack = is_indented && (OF_STACKS.iter().any(|start| text.starts_with(start)) || is_place_in_go(text));
    let is_numbered = text.strip_prefix('#').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    !(is_punctuation || is_of_stack || is_numbered || OF_ALL.iter().any(|usual| text.starts_with(usual)))
}

/// Whether this is the second line of a call in a stack of Go's: `/srv/app/main.go:12 +0x1d`.
fn is_place_in_go(text: &str) -> bool {
    text.starts_with('/') && text.contains(".go:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<&str> {
        telling(&text.lines().collect::<Vec<&str>>()).into_iter().map(str::trim).collect()
    }

    #[test]
    fn the_reason_is_left_of_what_programs_print_as_they_fail() {
        let node = "node:internal/modules/cjs/loader:1228\n  throw err;\n  ^\n\nError: Cannot find module 'express'\nRequire stack:\n- /srv/server.js\n    \
            at Module._resolveFilename (node:internal/modules/cjs/loader:1225:15)\n    at node:internal/main/run_main_module:28:49 {\n  \
            code: 'MODULE_NOT_FOUND',\n  requireStack: [\n    '/srv/server.js'\n  ]\n}\n\nNode.js v20.20.2\n";
        assert_eq!(told(node), ["Error: Cannot find module 'express'", "code: 'MODULE_NOT_FOUND',"]);
        let java = "Exception in thread \"main\" java.lang.IllegalStateException: cannot load it\n\tat App.deep(App.java:1)\n\tat App.main(App.java:1)\n\
            Caused by: java.io.IOException: no such file\n\tat App.read(App.java:7)\n\t... 12 more\n";
        assert_eq!(
            told(java),
            [
                "Exception in thread \"main\" java.lang.IllegalStateException: cannot load it",
                "Caused by: java.io.IOException: no such file"
            ]
        );
        let npm = "npm error code EUSAGE\nnpm error\nnpm error The `npm ci` command can only install with a lock file\nnpm error\n\
            npm error Clean install a project\nnpm error\nnpm error Usage:\nnpm error npm ci\nnpm error\nnpm error Options:\n\
            npm error [--install-strategy <hoisted>] [-E|--save-exact]\nnpm error\nnpm error aliases: clean-install, ic\nnpm error\n\
            npm error   --install-links\nnpm error     When set file: they are packed\nnpm error Run \"npm help ci\" for more info\nnpm error A complete log of this run can be found in: /x.log\n";
        assert_eq!(
            told(npm),
            ["npm error code EUSAGE", "npm error The `npm ci` command can only install with a lock file"]
        );
        let start = "cannot open database\nnpm ERR! Lifecycle script `start` failed with error: \nnpm ERR! Error: command failed \n\
            npm ERR!   in workspace: x@1 \nnpm error code 3\nnpm error path /srv\n";
        assert_eq!(told(start)[0], "cannot open database");
        let go = "panic: runtime error: index out of range [1] with length 0\n\ngoroutine 1 [running]:\n\t/srv/main.go:4 +0x1d\nexit status 2\n";
        assert_eq!(told(go), ["panic: runtime error: index out of range [1] with length 0", "exit status 2"]);
        let rust = "thread 'main' panicked at src/main.rs:2:5:\nno database\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(told(rust), ["thread 'main' panicked at src/main.rs:2:5:", "no database"]);
        let php = "PHP Fatal error:  Uncaught Exception: no database in /srv/index.php:3\nStack trace:\n#0 {main}\n  thrown in /srv/index.php on line 3\n";
        assert_eq!(told(php), ["PHP Fatal error:  Uncaught Exception: no database in /srv/index.php:3"]);
        let ruby = "server.rb:1:in `connect': no database (RuntimeError)\n\tfrom server.rb:9:in `<main>'\n";
        assert_eq!(told(ruby), ["server.rb:1:in `connect': no database (RuntimeError)"]);
        let python = "Traceback (most recent call last):\n  File \"/srv/server.py\", line 1, in <module>\n    connect()\nOSError: no database\n";
        assert_eq!(told(python), ["connect()", "OSError: no database"]);
    }

    #[test]
    fn what_an_app_says_by_itself_stays() {
        for line in [
            "at last it listens",
            "from here on nothing works",
            "File not found",
            "# 3 of 4 failed",
            "  indented",
            "x",
            "--port is missing",
        ] {
            assert!(is_telling(line), "{line}");
        }
    }
}
