# make serve | test | interop | soak | bench | lint. The environment is .venv; another Python: make PYTHON=python3.12 serve
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: serve test interop soak bench lint browsers

serve: .venv/ready ; @$(BIN)/realtime serve $(ARGS)
test: .venv/ready ; $(PYTEST) $(ARGS)
interop: .venv/ready browsers ; $(PYTEST) tests/interop tests/web $(ARGS)
soak: .venv/ready ; @$(call suite,tests/soak)
bench: .venv/ready ; $(BIN)/python -m benchmarks $(ARGS)
lint: .venv/ready ; $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Suites that `make test` leaves out: foreign peers and browsers, long runs.
suite = if ls $(1)/test_*.py >/dev/null 2>&1; then $(PYTEST) $(1) $(ARGS); else echo "$(1) has no tests yet"; fi

# The tests of the page need Debian's Chromium, Firefox and coturn. What cannot be installed is skipped, and said so.
apt = $$(test "$$(id -u)" = 0 || echo sudo -n) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120
browsers:
	@command -v chromium >/dev/null && command -v firefox-esr >/dev/null && command -v turnserver >/dev/null \
	  || { echo "Installing Chromium, Firefox and coturn for the tests of the page"; $(apt) update \
	  && $(apt) install -y --no-install-recommends chromium fonts-dejavu-core firefox-esr coturn >/dev/null; } \
	  || echo "Not all of them could be installed: the tests that need them will be skipped"

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d; with another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@echo "Installing into .venv (once, about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[local,test]"
	@touch $@
