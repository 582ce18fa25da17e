//! Reading nginx's configuration as `nginx -T` prints it: only as much of its language as it takes to find directives and
//! the blocks in which they stand.
#![deny(clippy::arithmetic_side_effects)]

use std::path::Path;

/// A directive with its arguments, and the blocks around it in its file, the outermost first.
struct Directive {
    words: Vec<String>,
    blocks: Vec<Block>,
}

/// A block: its name, and a number that no other one has.
#[derive(Clone, PartialEq, Eq)]
struct Block {
    name: String,
    number: usize,
}

/// A file of the configuration.
struct File {
    path: String,
    directives: Vec<Directive>,
}

/// How deep files include others at the most.
const DEEPEST: usize = 16;

/// The patterns of all files that are included in the http block itself, as they are written.
pub fn includes_in_http(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(text, &mut |_, blocks, words| match (blocks, words) {
        ([http], [name, pattern]) if http.name == "http" && name == "include" => found.push(pattern.clone()),
        _ => {}
    });
    found
}

/// A server block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// The file in which it begins.
    pub file: String,
    /// What follows each `listen`.
    pub listen: Vec<String>,
    /// What follows `server_name`.
    pub names: Vec<String>,
    /// The files that are included in the block itself.
    pub includes: Vec<String>,
}

/// All server blocks, in the order in which nginx reads them.
pub fn servers(text: &str) -> Vec<Server> {
    let mut found: Vec<(Block, Server)> = Vec::new();
    walk(text, &mut |file, blocks, words| {
        let ([http, block], [name, arguments @ ..]) = (blocks, words) else { return };
        if http.name != "http" || block.name != "server" {
            return;
        }
        let at = found.iter().position(|(known, _)| known == block).unwrap_or_else(|| {
            found.push((block.clone(), Server { file: file.to_owned(), ..Server::default() }));
            found.len().saturating_sub(1)
        });
        let Some((_, server)) = found.get_mut(at) else { return };
        match name.as_str() {
            "listen" => server.listen.push(arguments.join(" ")),
            "server_name" => server.names.extend_from_slice(arguments),
            "include" => server.includes.extend_from_slice(arguments),
            _ => {}
        }
    });
    found.into_iter().map(|(_, server)| server).collect()
}

/// The server blocks of one file, which is included in the http block.
pub fn servers_of_file(text: &str) -> Vec<Server> {
    servers(&format!("#{FILE}/:\nhttp {{\n{text}\n}}\n"))
}

/// What is wrong where a file is included that passes requests on.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This file, which is included beside it, sets these header fields too: they are sent twice.
    Doubled { file: String, fields: Vec<String> },
    /// In the server block that begins in this file none of the files is included that it needs.
    Lacking { file: String },
}

/// What is wrong where `proxy` is included, which needs one of `needed` in the same server block.
pub fn troubles(text: &str, proxy: &str, needed: &[String]) -> Vec<Trouble> {
    // The blocks in which it is included, and the server blocks around them, by their numbers.
    let (mut within, mut servers, mut served) = (Vec::new(), Vec::new(), Vec::new());
    walk(text, &mut |file, blocks, _| {
        let server = blocks.iter().find(|block| block.name == "server");
        if file == proxy {
            within.extend(blocks.last().map(|block| block.number));
            servers.extend(server.map(|server| server.number));
        }
        if needed.iter().any(|needed| needed == file) {
            served.extend(server.map(|server| server.number));
        }
    });
    let (mut own, mut doubled, mut lacking) = (Vec::new(), Vec::<(String, Vec<String>)>::new(), Vec::<String>::new());
    let field = |words: &[String]| match words {
        [name, field, _] if name == "proxy_set_header" => Some(field.clone()),
        _ => None,
    };
    walk(text, &mut |file, _, words| own.extend(field(words).filter(|_| file == proxy)));
    walk(text, &mut |file, blocks, words| {
        let is_beside = file != proxy && blocks.last().is_some_and(|block| within.contains(&block.number));
        let twice = field(words).filter(|field| is_beside && own.iter().any(|own| own.eq_ignore_ascii_case(field)));
        if let Some(field) = twice {
            match doubled.iter_mut().find(|(known, _)| known == file) {
                Some((_, fields)) if fields.contains(&field) => {}
                Some((_, fields)) => fields.push(field),
                None => doubled.push((file.to_owned(), vec![field])),
            }
        }
        let server = blocks.iter().find(|block| block.name == "server").map(|server| server.number);
        let is_lacking = server.is_some_and(|server| servers.contains(&server) && !served.contains(&server));
        if is_lacking && file != proxy && !lacking.iter().any(|known| known == file) {
            lacking.push(file.to_owned());
        }
    });
    let doubled = doubled.into_iter().map(|(file, fields)| Trouble::Doubled { file, fields });
    doubled.chain(lacking.into_iter().map(|file| Trouble::Lacking { file })).collect()
}

/// Whether nginx would read what lies at `path` before what lies at `other`, both being included in the http block.
pub fn is_read_before(text: &str, path: &str, other: &str) -> bool {
    let patterns = includes_in_http(text);
    let place = |path: &str| patterns.iter().position(|pattern| takes(pattern, path));
    match (place(path), place(other)) {
        (Some(one), Some(two)) if one == two => path < other,
        // What no pattern takes in stands in the main file, between or behind them.
        (one, two) => one.is_some() && (two.is_none() || one < two),
    }
}

/// The files with a server that answers on this port for whatever name no other server has.
pub fn default_servers(text: &str, port: u16) -> Vec<String> {
    let is_default = |directive: &Directive| match &directive.words[..] {
        [name, address, flags @ ..] => {
            name == "listen"
                && flags.iter().any(|flag| flag == "default_server")
                && address.rsplit(':').next().is_some_and(|end| end.parse() == Ok(port))
        }
        _ => false,
    };
    let such = files(text).into_iter().filter(|file| file.directives.iter().any(is_default));
    such.map(|file| file.path).collect()
}

/// Visits each directive in the order in which nginx reads them: the file in which it stands, the blocks around it, those of
/// the files that include that one among them, and its words.
fn walk(text: &str, visit: &mut impl FnMut(&str, &[Block], &[String])) {
    let files = files(text);
    if let Some(main) = files.first() {
        follow(&files, main, &[], DEEPEST, visit);
    }
}

/// Visits what a file holds and includes, the file itself standing within these blocks.
fn follow(
    files: &[File],
    file: &File,
    around: &[Block],
    depth: usize,
    visit: &mut impl FnMut(&str, &[Block], &[String]),
) {
    for directive in &file.directives {
        let blocks = [around, &directive.blocks].concat();
        visit(&file.path, &blocks, &directive.words);
        if let [name, pattern] = &directive.words[..]
            && let Some(depth) = depth.checked_sub(1)
            && name == "include"
        {
            for included in files.iter().filter(|file| takes(pattern, &file.path)) {
                follow(files, included, &blocks, depth, visit);
            }
        }
    }
}

/// Whether a pattern takes in a file.
fn takes(pattern: &str, path: &str) -> bool {
    let expression = regex::escape(pattern).replace("\\*", "[^/]*").replace("\\?", "[^/]");
    let beginning = if pattern.starts_with('/') { "^" } else { "^.*/" };
    regex::Regex::new(&format!("{beginning}{expression}$")).is_ok_and(|pattern| pattern.is_match(path))
}

/// Whether a pattern takes in every `*.conf` of a directory. nginx reads one without a slash at its beginning from the
/// directory of its main file.
pub fn takes_all_in(pattern: &str, directory: &Path) -> bool {
    let Some((place, names)) = pattern.rsplit_once('/') else { return false };
    let is_place = match place.starts_with('/') {
        true => Path::new(place) == directory,
        false => directory.ends_with(place),
    };
    is_place && matches!(names, "*.conf" | "*")
}

/// All files, the main one first, each with its directives.
fn files(text: &str) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    let (mut words, mut blocks) = (Vec::new(), Vec::<Block>::new());
    let mut numbers = 0..;
    for token in tokens(text) {
        match token {
            Token::Word(word) => words.push(word),
            Token::End => {
                let directive = Directive { words: std::mem::take(&mut words), blocks: blocks.clone() };
                if let Some(file) = files.last_mut() {
                    file.directives.push(directive);
                }
            }
            Token::Open => {
                let name = std::mem::take(&mut words).into_iter().next().unwrap_or_default();
                blocks.extend(numbers.next().map(|number| Block { name, number }));
            }
            Token::Close => drop(blocks.pop()),
            Token::File(path) => {
                words.clear();
                blocks.clear();
                files.push(File { path, directives: Vec::new() });
            }
        }
    }
    files
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    End,
    Open,
    Close,
    /// Another file begins, with this path.
    File(String),
}

/// What `nginx -T` writes before each file.
const FILE: &str = " configuration file ";

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (_, '\\') => {
                let word = word.get_or_insert_default();
                word.push('\\');
                word.extend(characters.next());
            }
            (Some(mark), _) if character == mark => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') if word.is_none() => {
                quote = Some(character);
                word = Some(String::new());
            }
            (None, '#') if word.is_none() => {
                let comment: String = std::iter::from_fn(|| characters.next_if(|next| *next != '\n')).collect();
                let path = comment.strip_prefix(FILE).and_then(|rest| rest.strip_suffix(':'));
                found.extend(path.map(|path| Token::File(path.to_owned())));
            }
            (None, '{') if word.as_deref().is_some_and(|word| word.ends_with('$')) => {
                word.get_or_insert_default().push('{')
            }
            (None, '}') if word.as_deref().is_some_and(|word| word.contains("${")) => {
                word.get_or_insert_default().push('}')
            }
            (None, ';' | '{' | '}') => {
                found.extend(word.take().map(Token::Word));
                found.push(match character {
                    ';' => Token::End,
                    '{' => Token::Open,
                    _ => Token::Close,
                });
            }
            (None, _) if character.is_whitespace() => found.extend(word.take().map(Token::Word)),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"# configuration file /etc/nginx/nginx.conf:
user www-data; # http { include /commented/*.conf; }
events { worker_connections 1024; }
stream { include /etc/nginx/stream.d/*.conf; }
http {
    log_format main '$remote_addr "{ include /quoted/*.conf; }"';
    map $http_upgrade $x { default up; include /in/a/map/*.conf; }
    include /etc/nginx/mime.types;
    include "/etc/nginx/conf.d/*.conf";
    include sites-enabled/*;
    server { include snippets/*.conf; return 200 ${x}y; }
    include late/*.conf;
}

# configuration file /etc/nginx/conf.d/x.conf:
server { include /in/a/server/*.conf; }
include /of/another/file/*.conf;

# configuration file /etc/nginx/snippets/y.conf:
include /of/a/file/in/a/server/*.conf;
"#;

    #[test]
    fn what_the_http_block_includes_is_found() {
        let found = [
            "/etc/nginx/mime.types",
            "/etc/nginx/conf.d/*.conf",
            "/of/another/file/*.conf",
            "sites-enabled/*",
            "late/*.conf",
        ];
        assert_eq!(includes_in_http(PRINTED), found);
    }

    #[test]
    fn the_server_blocks_are_found_in_their_order() {
        let text = "# configuration file /etc/nginx/nginx.conf:\nstream { server { listen 53; } }\nhttp { include conf.d/*.conf;\n\
            server { listen 81; } include sites/*; }\n# configuration file /etc/nginx/conf.d/b.conf:\n\
            server { include snippets/l; location / { return 200; } server_name a b; }\nserver { listen 82 ssl; }\n\
            # configuration file /etc/nginx/snippets/l:\nlisten 80; listen [::]:80 default_server;\n\
            # configuration file /etc/nginx/sites/c:\nserver { server_name c; }\n";
        let owned = |words: &[&str]| words.iter().map(|&one| one.to_owned()).collect();
        let server = |file: &str, listen: &[&str], names: &[&str]| Server {
            file: file.to_owned(),
            listen: owned(listen),
            names: owned(names),
            includes: if names.contains(&"a") { owned(&["snippets/l"]) } else { Vec::new() },
        };
        let b = "/etc/nginx/conf.d/b.conf";
        let expected = [
            // The directive that stands first is one of an included file.
            server(b, &["80", "[::]:80 default_server"], &["a", "b"]),
            server(b, &["82 ssl"], &[]),
            server("/etc/nginx/nginx.conf", &["81"], &[]),
            server("/etc/nginx/sites/c", &[], &["c"]),
        ];
        assert_eq!(servers(text), expected);
        for (path, other, expected) in [
            ("/etc/nginx/conf.d/a.conf", b, true),
            ("/etc/nginx/conf.d/c.conf", b, false),
            ("/etc/nginx/conf.d/c.conf", "/etc/nginx/sites/a", true),
            ("/etc/nginx/sites/a", b, false),
        ] {
            assert_eq!(is_read_before(text, path, other), expected, "{path} {other}");
        }
    }

    #[test]
    fn what_is_wrong_around_an_included_file_is_found() {
        let text = "# configuration file /etc/nginx/nginx.conf:\nhttp { include sites/*; }\n\
            # configuration file /etc/nginx/sites/a:\nserver { include shop.d/instance.conf; location / { include shop.d/proxy.conf; \
            include proxy_params; proxy_set_header X-Own 1; } location /b { include shop.d/proxy.conf; proxy_set_header host x; } }\n\
            # configuration file /etc/nginx/sites/b:\nserver { location / { include shop.d/proxy.conf; } }\n\
            # configuration file /etc/nginx/sites/c:\nserver { include shop.d/choice.conf; location / { include shop.d/proxy.conf; } \
            location /other { proxy_set_header Host x; } }\n\
            # configuration file /etc/nginx/proxy_params:\nproxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;\n\
            # configuration file /etc/nginx/shop.d/proxy.conf:\nproxy_set_header Host $host; proxy_set_header X-Real-IP x;\n\
            # configuration file /etc/nginx/shop.d/instance.conf:\ninclude shop.d/choice.conf;\n\
            # configuration file /etc/nginx/shop.d/choice.conf:\nset $x y;\n";
        let needed = ["/etc/nginx/shop.d/choice.conf".to_owned()];
        let doubled = |file: &str, fields: &[&str]| Trouble::Doubled {
            file: file.to_owned(),
            fields: fields.iter().map(|&field| field.to_owned()).collect(),
        };
        let expected = [
            doubled("/etc/nginx/proxy_params", &["Host", "X-Real-IP"]),
            doubled("/etc/nginx/sites/a", &["host"]),
            Trouble::Lacking { file: "/etc/nginx/sites/b".to_owned() },
        ];
        assert_eq!(troubles(text, "/etc/nginx/shop.d/proxy.conf", &needed), expected);
    }

    #[test]
    fn the_default_servers_of_a_port_are_found() {
        let text = "# configuration file /etc/nginx/a:\nserver { listen [::]:80 default_server; listen 80; }\n\
            # configuration file /etc/nginx/b:\nserver { listen 80; }\nserver { listen 127.0.0.1:81 ssl default_server; }\n\
            # configuration file /etc/nginx/c:\nserver { # listen 80 default_server;\n}\n";
        assert_eq!(default_servers(text, 80), ["/etc/nginx/a"]);
        assert_eq!(default_servers(text, 81), ["/etc/nginx/b"]);
        assert!(default_servers(text, 443).is_empty());
    }

    #[test]
    fn only_a_pattern_that_takes_every_file_of_the_directory_will_do() {
        let directory = Path::new("/etc/nginx/conf.d");
        for pattern in ["/etc/nginx/conf.d/*.conf", "/etc/nginx/conf.d/*", "conf.d/*.conf"] {
            assert!(takes_all_in(pattern, directory), "{pattern}");
        }
        for pattern in
            ["/etc/nginx/*.conf", "/etc/nginx/conf.d/site-*.conf", "/other/conf.d/*.conf", "f.d/*.conf", "*.conf"]
        {
            assert!(!takes_all_in(pattern, directory), "{pattern}");
        }
    }
}
