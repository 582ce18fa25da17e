# cutover: building, showing, proving. `make help` lists the targets.

CARGO  ?= cargo
# Where `make install` puts the tools' man pages and the project's installer, for packagers.
prefix  ?= /usr/local
DESTDIR ?=
# Where zsh looks for completion; Debian keeps another place for its packages.
zshdir  ?= $(prefix)/share/zsh/site-functions

# A test of each tool, for `make quick`.
QUICK = test_bootup::it_starts_nginx_the_enabled_instance_and_the_standby \
        test_connect_to_nginx::it_switches_to_the_disabled_instance_or_the_one_that_is_named \
        test_deploy::the_steps_run_by_hand_are_a_deploy \
        test_disabled_instance::the_first_is_disabled_before_the_first_deploy_then_each_deploy_disables_the_other \
        test_disabled_port::the_first_port_is_disabled_before_the_first_deploy_then_each_deploy_disables_the_other \
        test_enabled_instance::nothing_is_enabled_before_the_first_deploy_then_each_deploy_enables_the_other \
        test_enabled_port::no_port_is_enabled_before_the_first_deploy_then_each_deploy_enables_the_other \
        test_history::a_table_for_people_and_what_was_recorded_for_programs \
        test_install::a_second_install_has_nothing_to_do_and_changes_nothing \
        test_logs::it_prints_one_instance_as_it_is_and_both_after_their_names \
        test_on_push::queues_pushes_as_their_hosts_send_them \
        test_pid::it_says_no_when_nothing_listens_and_tells_the_listener_when_something_does \
        test_reload::new_variables_take_effect_and_are_told_by_name \
        test_rollback::with_a_warm_standby_it_only_switches_and_again_switches_back \
        test_start_instance::it_returns_when_the_instance_is_healthy_and_at_once_when_it_was \
        test_status::a_table_for_people_and_json_for_programs \
        test_stop_instance::a_request_in_flight_is_answered_whole \
        test_supervise::an_app_that_crashes_is_started_again_and_the_restarts_are_counted \
        test_update_instance::it_prints_the_release_and_makes_each_commit_only_once

# How many tests run at the same time: what they do is mostly waiting.
TEST_THREADS ?= 8

# How long each fuzzer looks for trouble.
FUZZ_SECONDS ?= 60

# The pm2 that is measured beside the tools.
PM2_VERSION ?= 7.0.4

# What `all` builds. With the tests' own programs beside them the tools' dependencies have more features, so that the tools
# are others: who has these does not want to build both.
BUILD ?= --bins

# Who answers for the Debian package.
maintainer ?= cutover <cutover@localhost>
export maintainer

host  = $(shell rustc --print host-tuple)
built = target/$(host)/release
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
tools = $(basename $(notdir $(wildcard src/bin/*.rs)))
fuzzers = $(basename $(notdir $(wildcard tests/fuzz/targets/*.rs)))

for-all = nginx git curl node npm python3 ip
for-test = mandoc sudo strace zsh fish libnss-extrausers php javac python3-venv
for-e2e = git curl ip systemd-nspawn mmdebstrap mkfs.ext4 dpkg-deb make

dist    = target/dist
package = $(dist)/cutover-$(version)-$(shell uname -m)-linux
# What is made from one commit on one machine is the same every time.
time    = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

all: ## Build the tools
	$(CARGO) build --release $(BUILD) --locked

programs: ## Build tools, tests and proofs, each once
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) test --release --locked --no-run --lib --test tests --bench bench --bench torture --bench e2e --bench e2e-docker --bench try-apps

demo: set-up ## Watch a deploy, a crash and a rollback under load
	$(CARGO) build --release --bins --example load --locked
	tests/demo.sh

demo-docker: ## The same with containers: Docker, a registry and Compose of its own (needs root)
	@tests/docker/set-up.sh
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench e2e-docker -- --demo

quick: check set-up ## Formatting, lints, unit tests and a test of each tool, in under two minutes once it is built
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) test --release --locked --lib
	$(CARGO) test --release --locked --test tests -- --test-threads=$(TEST_THREADS) --exact $(QUICK)

test: set-up ## Install what is missing and run all tests
	@tests/set-up.sh $(for-test)
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) test --release --locked --lib --test tests -- --test-threads=$(TEST_THREADS)

proofs: ## Run everything whole, for hours: tests, torture, e2e, e2e-docker, try-apps, fuzz, bench, demos (needs root)
	PROPTEST_CASES=2000 DEPLOYS=50 PAUSE_MS=5 $(MAKE) test
	$(MAKE) torture
	$(MAKE) e2e
	$(MAKE) e2e-docker
	$(MAKE) try-apps
	$(MAKE) fuzz
	$(MAKE) bench
	$(MAKE) demo
	$(MAKE) demo-docker

torture: set-up ## Kill tools at every point, fail their disk, crash the app, and print what became of it
	@tests/set-up.sh strace
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench torture -- $(TORTURE_OPTIONS)

e2e: ## Boot real servers: install, deploy, reboot, cut the power, and tell whether all was kept (needs root)
	@tests/set-up.sh $(for-e2e)
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench e2e -- $(E2E_OPTIONS)

e2e-docker: ## Deploy containers on a real Docker: under load, broken, killed, with dockerd killed (needs root)
	@tests/docker/set-up.sh
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench e2e-docker -- $(E2E_DOCKER_OPTIONS)

try-apps: set-up ## Deploy real apps from the registries, as docs/apps.md says, and break nothing under load
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench try-apps -- $(TRY_APPS_OPTIONS)

fuzz: ## Look for requests that on-push takes wrongly, for FUZZ_SECONDS=60 with each fuzzer; a crash fails
	@tests/set-up.sh c++
	$(CARGO) fetch --locked --manifest-path tests/fuzz/Cargo.toml
	command -v cargo-fuzz >/dev/null || test -x target/cargo-fuzz/bin/cargo-fuzz || $(CARGO) install cargo-fuzz --locked --root target/cargo-fuzz
	mkdir -p $(addprefix target/fuzz-corpus/,$(fuzzers))
	for fuzzer in $(fuzzers); do PATH="$$PATH:$(CURDIR)/target/cargo-fuzz/bin" $(CARGO) fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none \
	    $$fuzzer target/fuzz-corpus/$$fuzzer tests/fuzz/corpus/$$fuzzer -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -verbosity=0 -print_final_stats=1 || exit; done

check: ## Formatting and lints, warnings as errors
	$(CARGO) fmt --check
	$(CARGO) metadata --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null
	$(CARGO) clippy --release --all-targets --locked -- -D warnings

bench: set-up ## Measure losses, latencies and memory against the alternatives
	@tests/set-up.sh lsof
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench bench -- $(BENCH_OPTIONS)

bench-pm2: set-up ## Measure beside pm2, which npm installs below target: the same app, the same load, one run
	npm install --prefix target/pm2 --no-audit --no-fund --loglevel=error pm2@$(PM2_VERSION)
	$(CARGO) build --release --bins --examples --locked
	$(CARGO) bench --locked --bench bench-pm2 -- $(BENCH_PM2_OPTIONS)

install: all ## Install tools and man pages below $(DESTDIR)$(prefix), for packagers; ./install sets up an app
	install -d $(addprefix $(DESTDIR)$(prefix)/,lib/cutover/bin share/man/man1 share/man/man5 share/man/man7 share/doc/cutover/examples/codedeploy share/doc/cutover/docs share/fish/vendor_conf.d) $(DESTDIR)$(zshdir)
	install -m 755 $(addprefix $(built)/,$(tools)) $(DESTDIR)$(prefix)/lib/cutover/bin
	install -m 755 install $(DESTDIR)$(prefix)/lib/cutover
	install -m 644 man/cutover.7 $(DESTDIR)$(prefix)/share/man/man7
	install -m 644 man/cutover-config.5 $(DESTDIR)$(prefix)/share/man/man5
	for tool in $(tools); do install -m 644 man/$$tool.1 $(DESTDIR)$(prefix)/share/man/man1/cutover-$$tool.1; done
	install -m 644 completions/cutover.bash $(DESTDIR)$(prefix)/lib/cutover
	install -m 644 completions/_cutover $(DESTDIR)$(zshdir)
	install -m 644 completions/cutover.fish $(DESTDIR)$(prefix)/share/fish/vendor_conf.d
	install -m 644 README.md README.ko.md SECURITY.md CHANGELOG.md CONTRIBUTING.md LICENSE ssm/cutover.json $(DESTDIR)$(prefix)/share/doc/cutover
	install -m 644 $(wildcard docs/*.md) $(DESTDIR)$(prefix)/share/doc/cutover/docs
	install -m 644 examples/github-actions.yml $(DESTDIR)$(prefix)/share/doc/cutover/examples
	install -m 644 examples/codedeploy/appspec.yml $(DESTDIR)$(prefix)/share/doc/cutover/examples/codedeploy
	install -m 755 examples/codedeploy/deploy.sh $(DESTDIR)$(prefix)/share/doc/cutover/examples/codedeploy

uninstall: ## Take away what `make install` laid
	rm -rf $(DESTDIR)$(prefix)/lib/cutover $(DESTDIR)$(prefix)/share/doc/cutover
	rm -f $(DESTDIR)$(zshdir)/_cutover $(DESTDIR)$(prefix)/share/fish/vendor_conf.d/cutover.fish
	rm -f $(DESTDIR)$(prefix)/share/man/man7/cutover.7 $(DESTDIR)$(prefix)/share/man/man5/cutover-config.5 $(patsubst %,$(DESTDIR)$(prefix)/share/man/man1/cutover-%.1,$(tools))

dist: all ## Make a tar and a Debian package of built tools, for servers that cannot compile
	rm -rf $(dist)
	install -d $(package)/bin
	install -m 755 $(addprefix $(built)/,$(tools)) $(package)/bin
	cp -R install README.md README.ko.md SECURITY.md CHANGELOG.md CONTRIBUTING.md LICENSE man docs nginx systemd completions ssm examples $(package)
	tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(time) -C $(dist) -czf $(package).tar.gz $(notdir $(package))
	rm -r $(package)
	$(MAKE) install DESTDIR=$(dist)/deb prefix=/usr zshdir=/usr/share/zsh/vendor-completions
	install -d $(dist)/deb/etc/bash_completion.d
	ln -s /usr/lib/cutover/cutover.bash $(dist)/deb/etc/bash_completion.d/cutover
	mv $(dist)/deb/usr/share/doc/cutover/LICENSE $(dist)/deb/usr/share/doc/cutover/copyright
	printf '%s\n' 'cutover ($(version)) unstable; urgency=medium' '' '  * Version $(version).' '' " -- $$maintainer  $(shell date --utc --rfc-email --date=@$(time))" \
	    >$(dist)/deb/usr/share/doc/cutover/changelog
	gzip -9n $(dist)/deb/usr/share/man/man?/* $(dist)/deb/usr/share/doc/cutover/changelog
	install -d $(dist)/deb/usr/share/lintian/overrides
	printf '%s\n' '# Linked statically, libraries and all, to run on any Linux.' 'cutover: statically-linked-binary' 'cutover: embedded-library' \
	    '# Completes names that other programs have, too, so it must be there before the first of them is called.' \
	    'cutover: package-installs-into-obsolete-dir' >$(dist)/deb/usr/share/lintian/overrides/cutover
	install -d $(dist)/deb/DEBIAN
	printf '%s\n' 'Package: cutover' 'Version: $(version)' 'Architecture: $(shell dpkg --print-architecture)' 'Section: admin' 'Priority: optional' \
	    "Maintainer: $$maintainer" 'Recommends: nginx, git, sudo' 'Description: blue-green deploys behind nginx, without losing a request' \
	    ' Tiny programs that deploy one web app on one host. /usr/lib/cutover/install' ' sets an app up; each app has tools of its own, which this package leaves alone.' >$(dist)/deb/DEBIAN/control
	cd $(dist)/deb && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums
	SOURCE_DATE_EPOCH=$(time) dpkg-deb --root-owner-group -Zxz --build $(dist)/deb $(dist)
	rm -r $(dist)/deb
	cd $(dist) && sha256sum cutover* >SHA256SUMS
	cd $(dist) && ls -l cutover* && cat SHA256SUMS

clean: ## Remove what was built
	$(CARGO) clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

set-up:
	@tests/set-up.sh $(for-all)

# What all targets need, in one go.
set-up-all:
	@tests/set-up.sh $(for-all) $(for-test) c++ lsof $(for-e2e)
	@tests/docker/set-up.sh

# What e2e boots.
hosts:
	@for suite in bookworm trixie; do tests/e2e/host.sh $$suite || exit; done

.PHONY: all programs demo demo-docker quick test proofs torture e2e e2e-docker try-apps fuzz check bench bench-pm2 install uninstall dist clean help set-up set-up-all hosts
