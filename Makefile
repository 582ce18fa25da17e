# cutover: building, showing, proving. `make help` lists the targets.

CARGO  ?= cargo
# Where `make install` puts the tools' man pages and the project's installer, for packagers.
prefix  ?= /usr/local
DESTDIR ?=

# The tests that put tools, apps and people's input in trouble, beside the program that does so at every point.
HARDSHIPS = tests:: test_bad_input test_broken_release test_crash test_hostile_apps test_nginx_faults test_people \
            test_secrets test_supervise

host  = $(shell rustc --print host-tuple)
built = target/$(host)/release
tools = $(basename $(notdir $(wildcard src/bin/*.rs)))

all: ## Build the tools
	$(CARGO) build --release --bins --locked

demo: set-up ## Watch a deploy, a crash and a rollback under load
	$(CARGO) build --release --bins --example load --locked
	tests/demo.sh

test: set-up ## Install what is missing and run all tests
	@tests/set-up.sh mandoc strace
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) test --release --locked --lib --test tests -- --test-threads=4

torture: set-up ## Kill tools at every point, fail their disk, crash the app, and print what became of it
	@tests/set-up.sh strace
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench torture -- $(TORTURE_OPTIONS)
	PROPTEST_CASES=2000 $(CARGO) test --release --locked --lib --test tests -- --test-threads=4 $(HARDSHIPS)

check: ## Formatting and lints, warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

bench: set-up ## Measure losses, latencies and memory against the alternatives
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench bench -- $(BENCH_OPTIONS)

install: all ## Install tools and man pages below $(DESTDIR)$(prefix), for packagers; ./install sets up an app
	install -d $(DESTDIR)$(prefix)/lib/cutover/bin $(DESTDIR)$(prefix)/share/man/man1 $(DESTDIR)$(prefix)/share/man/man5 $(DESTDIR)$(prefix)/share/man/man7
	install -m 755 $(addprefix $(built)/,$(tools)) $(DESTDIR)$(prefix)/lib/cutover/bin
	install -m 755 install $(DESTDIR)$(prefix)/lib/cutover
	install -m 644 man/cutover.7 $(DESTDIR)$(prefix)/share/man/man7
	install -m 644 man/cutover-config.5 $(DESTDIR)$(prefix)/share/man/man5
	for tool in $(tools); do install -m 644 man/$$tool.1 $(DESTDIR)$(prefix)/share/man/man1/cutover-$$tool.1; done

uninstall: ## Take away what `make install` laid
	rm -rf $(DESTDIR)$(prefix)/lib/cutover
	rm -f $(DESTDIR)$(prefix)/share/man/man7/cutover.7 $(DESTDIR)$(prefix)/share/man/man5/cutover-config.5 $(patsubst %,$(DESTDIR)$(prefix)/share/man/man1/cutover-%.1,$(tools))

clean: ## Remove what was built
	$(CARGO) clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

set-up:
	@tests/set-up.sh nginx git curl node npm python3 ip

.PHONY: all demo test torture check bench install uninstall clean help set-up
