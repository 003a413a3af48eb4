# make serve | test | interop | soak | bench | lint. The environment is .venv; another Python: make PYTHON=python3.12 serve
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
TWO := $(PYTEST) -n 2 --dist loadfile

.PHONY: serve test interop soak bench lint browsers

serve: .venv/ready ; @$(BIN)/realtime serve $(ARGS)
# Two files at a time. Calls keep time and mostly wait: they go first, and have the machine to themselves.
test: .venv/ready
	$(if $(ARGS),$(PYTEST) $(ARGS),$(TWO) tests/calls && $(TWO) --ignore tests/calls)
interop: .venv/ready browsers ; $(PYTEST) tests/interop tests/web $(ARGS)
soak: .venv/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[fuzz]" || echo "atheris could not be installed: fuzzing will be skipped"
	@$(call suite,tests/soak)
bench: .venv/ready ; $(BIN)/python -m benchmarks $(ARGS)
lint: .venv/ready ; $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Suites that `make test` leaves out: foreign peers and browsers, long runs.
suite = if ls $(1)/test_*.py >/dev/null 2>&1; then $(PYTEST) $(1) $(ARGS); else echo "$(1) has no tests yet"; fi

# Foreign programs of Debian's that make interop tests with. What cannot be installed is skipped, and said so.
apt = $$(test "$$(id -u)" = 0 || echo sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120
browsers:
	@missing=; for each in chromium firefox-esr turnserver:coturn caddy debootstrap baresip janus kamailio; do \
	  PATH="$$PATH:/usr/sbin" command -v "$${each%%:*}" >/dev/null || missing="$$missing $${each##*:}"; done; \
	test -z "$$missing" || { echo "Installing for the tests:$$missing"; \
	  $(apt) update && $(apt) install -y --no-install-recommends $$missing fonts-dejavu-core >/dev/null; } \
	  || echo "Not all of them could be installed: the tests that need them will be skipped"

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; with another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@echo "Installing into .venv (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[local,test]"
	@touch $@
