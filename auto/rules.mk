# The rules of the build (GNU make). configure writes $(O)/Makefile, which sets the variables
# and includes this file; everything built lies under $(O), laid out like the source.
# Sources are found by wildcard: adding a file or a module needs no change here.

.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

FOLDERS := core proto http stream mesh control
CORE_SRC := $(foreach f,$(FOLDERS),$(wildcard src/$f/*.c src/$f/*/*.c))
PROTOS := $(if $(wildcard src/proto),$(shell find src/proto -name '*.proto' | sort))
MODULES := $(filter-out $(MODULES_SKIPPED),$(notdir $(patsubst %/,%,$(dir $(wildcard modules/*/*.c)))))
MODULES := $(sort $(MODULES))
UNIT_SRC := $(filter-out $(MODULES_SKIPPED:%=t/unit/mod_%.c),$(wildcard t/unit/*.c))
TOOL_SRC := $(wildcard tools/*.c)

PROTO_C := $(PROTOS:src/proto/%.proto=$O/proto/%.pb-c.c)
PROTO_H := $(PROTO_C:.c=.h)
CORE_OBJ := $(CORE_SRC:%.c=$O/%.o)
PROTO_OBJ := $(PROTO_C:.c=.o)
MODULE_SO := $(foreach m,$(MODULES) $(ADDONS),$O/modules/hd_$m_module.so)
UNIT := $(UNIT_SRC:%.c=$O/%)
TOOLS := $(TOOL_SRC:%.c=$O/%)

# Generated headers include each other by their path below src/proto.
PROTO_INC := -I$O/proto -Isrc/proto
CORE_INC := -Isrc -I$O $(PROTO_INC)
# A module sees the public headers, the messages and modules/lib, nothing else.
MODULE_INC := -I$O/include -Imodules $(PROTO_INC)
# protoc-c's output is not ours to keep warning-free.
PROTO_CFLAGS := $(CFLAGS) -w

V ?= 0
say = $(if $(filter 0,$V),@printf '  %-8s %s\n' $1 $2;)

.PHONY: all build clean install check check-all asan tsan fuzz fuzz-build fuzz-targets format lint headers syntax tests
all: build
build: $O/heddle $(MODULE_SO) $O/modules/modules.index $(TOOLS) $(if $(filter objs,$O),compile_commands.json)

# Runs configure again, with the same arguments, when what it reads has changed.
$O/Makefile: configure $(wildcard auto/* auto/*/* modules/*/auto) src/hd_version.h
	@./configure $(HD_ARGS) >/dev/null

# Written by configure only when it differs: compiling depends on this rather than on the Makefile.
$O/flags: $O/Makefile ;

# A file whose content is the list of sources: what is made from all of them depends on it, so
# that a removed source is noticed too.
SOURCE_LIST := $(CORE_SRC) $(PROTOS) $(wildcard src/*.c) $(UNIT_SRC) $(TOOL_SRC) \
    $(foreach m,$(MODULES),$(wildcard modules/$m/*.c)) $(foreach a,$(ADDONS),$(wildcard $(ADDON_$a_DIR)/*.c))
ifneq ($(strip $(SOURCE_LIST)),$(strip $(shell cat $O/sources.list 2>/dev/null)))
$(shell mkdir -p $O && echo '$(strip $(SOURCE_LIST))' >$O/sources.list)
endif

# ---- messages

$O/proto/%.pb-c.c $O/proto/%.pb-c.h: src/proto/%.proto
	$(call say,PROTO,$<)mkdir -p $(@D) && $(PROTOC_C) -Isrc/proto --c_out=$O/proto $<

$O/proto/%.pb-c.o: $O/proto/%.pb-c.c $O/flags | $(PROTO_H)
	$(call say,CC,$<)$(CC) $(PROTO_CFLAGS) $(PROTO_INC) -MMD -MP -c -o $@ $<

# ---- what modules rely on: layouts of the public structs, as one number

$O/.abi: auto/abi $(shell find src/core -name '*.h') $O/flags
	@mkdir -p $O && perl auto/abi '$(CC) $(CFLAGS) $(CORE_INC)' core/hd_module.h >$O/hd_abi.h.new
	@cmp -s $O/hd_abi.h.new $O/hd_abi.h || mv $O/hd_abi.h.new $O/hd_abi.h; touch $@
$O/hd_abi.h: $O/.abi ;

# ---- the program

$O/src/%.o: src/%.c $O/flags | $(PROTO_H) $O/hd_abi.h
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(CFLAGS) $(CORE_INC) -MMD -MP -c -o $@ $<

$O/libheddle.a: $(CORE_OBJ) $(PROTO_OBJ) $O/sources.list
	$(call say,AR,$@)rm -f $@ && ar rcsT $@ $(CORE_OBJ) $(PROTO_OBJ)

# Until the foundation's pieces are all there, the program is linked of what heddle.c calls only;
# modules can't be loaded before that anyway.
FOUNDATION := src/core/net/hd_loop.c src/core/net/hd_tunnel.c src/core/proc/hd_process.c src/http/hd_request.c
ifeq ($(filter-out $(CORE_SRC),$(FOUNDATION)),)
WHOLE := -Wl,--whole-archive
endif

# Whole, and with our functions in the dynamic symbol table: modules call what the program
# itself may not.
$O/heddle: $O/src/heddle.o $O/src/hd_program.o $O/libheddle.a auto/heddle.dyn
	$(call say,LINK,$@)$(CC) $(LDFLAGS) -o $@ $O/src/heddle.o $O/src/hd_program.o \
	    $(WHOLE) $O/libheddle.a -Wl,--no-whole-archive \
	    -Wl,--dynamic-list=auto/heddle.dyn $(LIBS)

# ---- modules

# Links in $(O)/include: hd_module.h and what it includes.
$O/include/.stamp: auto/public_headers $(shell find src -name '*.h') $O/Makefile $O/hd_abi.h
	@mkdir -p $(@D) && sh auto/public_headers $O && touch $@

headers: $O/include/.stamp

# NAME DIR
define module_rules
$O/modules/$1/%.o: $2/%.c $O/flags | $O/include/.stamp $(PROTO_H) $O/hd_abi.h
	$$(call say,CC,$$<)mkdir -p $$(@D) && $$(CC) $$(CFLAGS) -fPIC -fvisibility=hidden \
	    $$(MODULE_INC) $$(MODULE_$1_CFLAGS) -MMD -MP -c -o $$@ $$<
$O/modules/hd_$1_module.so: $(patsubst $2/%.c,$O/modules/$1/%.o,$(wildcard $2/*.c)) $O/sources.list
	$$(call say,LINK,$$@)$$(CC) $$(LDFLAGS) -shared -o $$@ $$(filter %.o,$$^) \
	    $$(MODULE_$1_LIBS) -lprotobuf-c
-include $(patsubst $2/%.c,$O/modules/$1/%.d,$(wildcard $2/*.c))
endef
$(foreach m,$(MODULES),$(eval $(call module_rules,$m,modules/$m)))
$(foreach a,$(ADDONS),$(eval $(call module_rules,$a,$(ADDON_$a_DIR))))

# Which module has which directive: so that a configuration needs no load_module lines.
$O/modules/modules.index: $O/heddle $(MODULE_SO)
	$(call say,INDEX,$@)mkdir -p $(@D) && $O/heddle --print-module-index $(MODULE_SO) >$@.new && mv $@.new $@

docs: build
	$O/heddle --print-directives $(MODULE_SO) | perl tools/directives >docs/directives.md

# ---- tools and C unit tests: one file, one program

$O/tools/%.o: tools/%.c $O/flags | $(PROTO_H) $O/hd_abi.h
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(CFLAGS) $(CORE_INC) -MMD -MP -c -o $@ $<

$O/tools/%: $O/tools/%.o $O/libheddle.a
	$(call say,LINK,$@)$(CC) $(LDFLAGS) -o $@ $< $O/libheddle.a $(LIBS)

# This one loads modules, as the program does.
$O/tools/xds-effect: $O/tools/xds-effect.o $O/libheddle.a auto/heddle.dyn
	$(call say,LINK,$@)$(CC) $(LDFLAGS) -o $@ $< $(WHOLE) $O/libheddle.a \
	    -Wl,--no-whole-archive -Wl,--dynamic-list=auto/heddle.dyn $(LIBS)

$O/t/unit/%.o: t/unit/%.c $O/flags | $O/include/.stamp $(PROTO_H) $O/hd_abi.h
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(CFLAGS) $(CORE_INC) -I$O/include -Imodules -It/lib -I. -MMD -MP -c -o $@ $<

$O/t/unit/%: $O/t/unit/%.o $O/libheddle.a
	$(call say,LINK,$@)$(CC) $(LDFLAGS) -o $@ $< $O/libheddle.a $(LIBS)

# This one chooses what an upstream speaks.
$O/t/unit/no_memory: LDFLAGS += -Wl,--wrap=hd_h1_client_open

# This one needs its module's library.
$O/t/unit/mod_lua.o: CFLAGS += $(MODULE_lua_CFLAGS)
$O/t/unit/mod_lua: LIBS += $(MODULE_lua_LIBS)

# The loom's tests once more in the builds that they are made for, from a plain build, too: deaths
# are placed where there are assertions (at every store, for which sanitizers have no time), and
# threads run under TSan (t/unit/loom_threads.t). NAME FLAGS
LOOM_SRC := $(wildcard src/core/os/*.c src/core/base/*.c src/core/loom/*.c)
LOOM_TESTS :=
define loom_rules
$O/$1/%.o: %.c $O/flags
	$$(call say,CC,$$< $1)mkdir -p $$(@D) && $$(CC) $$(CFLAGS) $2 $$(CORE_INC) -It/lib -MMD -MP -c -o $$@ $$<
$O/$1/libloom.a: $(LOOM_SRC:%.c=$O/$1/%.o) $O/sources.list
	$$(call say,AR,$$@)rm -f $$@ && ar rcsT $$@ $(LOOM_SRC:%.c=$O/$1/%.o)
$O/t/unit/loom_%_$1: $O/$1/t/unit/loom_%.o $O/$1/libloom.a
	$$(call say,LINK,$$@)mkdir -p $$(@D) && $$(CC) $$(LDFLAGS) $2 -o $$@ $$^ $$(LIBS)
-include $(LOOM_SRC:%.c=$O/$1/%.d) $(patsubst t/%.c,$O/$1/t/%.d,$(wildcard t/unit/loom_*.c))
endef
ifeq ($(HD_SANITIZERS),)
$(eval $(call loom_rules,debug,-O1 -DHD_DEBUG=1))
UNIT += $O/t/unit/loom_death_debug $O/t/unit/loom_interleave_debug
endif
ifeq ($(HD_TSAN),yes)
$(eval $(call loom_rules,tsan,-O1 -DHD_DEBUG=1 -fsanitize=thread))
LOOM_TESTS += $O/t/unit/loom_stress_tsan
endif

-include $(CORE_OBJ:.o=.d) $(PROTO_OBJ:.o=.d) $O/src/heddle.d $O/src/hd_program.d $(UNIT:=.d) $(TOOLS:=.d)

tests: build $(UNIT) $(LOOM_TESTS)

# make check T=t/proxy/one.t runs just that
T ?= $(UNIT) $(sort $(wildcard t/unit/*.t t/proxy/*.t))
J ?= 2
check: tests
	HD_BUILD=$O prove -j$J -e t/exec $T

# Every test there is, those with several heddles and with genuine peers included. A file that
# fails beside others runs once more by itself, and the output names it: a machine too busy for
# a peer's time-out is told from a fault that stays.
check-all: tests
	@rm -f .prove
	HD_BUILD=$O prove --state=save -j$J -e t/exec $(UNIT) $(sort $(wildcard t/unit/*.t t/proxy/*.t \
	    t/mesh/*.t t/interop/*.t)) || { \
	    echo 'Once more, one by one, what failed:'; \
	    HD_BUILD=$O prove --state=failed -e t/exec; }

# The same under ASan and UBSan (and TSan), each in a build directory of its own.
asan:
	@test -f objs-asan/Makefile || ./configure $(HD_ARGS) --builddir=objs-asan \
	    --with-debug --with-sanitizers=address,undefined >/dev/null
	@$(MAKE) --no-print-directory BUILD=objs-asan check

tsan:
	@test -f objs-tsan/Makefile || ./configure $(HD_ARGS) --builddir=objs-tsan \
	    --with-sanitizers=thread >/dev/null
	@$(MAKE) --no-print-directory BUILD=objs-tsan check

# ---- fuzzing

# Each fuzz/NAME/NAME.c under libFuzzer, ASan and UBSan, with clang, run by fuzz/run.t for
# FUZZ_SECONDS in all. make fuzz FUZZ=h1 runs just that, make fuzz-build builds only.
FUZZ ?= $(basename $(notdir $(wildcard fuzz/*/*.c)))
FUZZ_SECONDS ?= 60
fuzz: fuzz-build
	@FUZZ='$(FUZZ)' FUZZ_SECONDS=$(FUZZ_SECONDS) prove -v fuzz/run.t

fuzz-build:
	@test -f objs-fuzz/Makefile || ./configure --with-cc=clang --builddir=objs-fuzz \
	    --with-sanitizers=address,undefined --with-cc-opt=-fsanitize=fuzzer-no-link >/dev/null
	@$(MAKE) --no-print-directory BUILD=objs-fuzz FUZZ='$(FUZZ)' fuzz-targets

comma := ,
# NAME OBJECTS FLAGS
define fuzz_rules
$O/fuzz/$1: fuzz/$1/$1.c $2 $O/libheddle.a
	$$(call say,FUZZ,$$<)mkdir -p $$(@D) && $$(CC) $$(CFLAGS) $$(CORE_INC) -fsanitize=fuzzer \
	    $$(LDFLAGS) -MMD -MP -o $$@ $$< $$(filter %.o,$2) $3 $O/libheddle.a -Wl,--no-whole-archive $$(LIBS)
-include $O/fuzz/$1.d
endef
# The whole program with its modules, loaded as it does: a configuration may say anything. Lua isn't
# among them: it would run.
FUZZ_PROGRAM := directives site xds
$(foreach f,$(FUZZ_PROGRAM),$(eval $(call fuzz_rules,$f,$O/src/hd_program.o \
    $(filter-out %/hd_lua_module.so,$(MODULE_SO)),-rdynamic $(WHOLE))))
$(eval $(call fuzz_rules,relay,,-Wl$(comma)--wrap=hd_h1_client_open))
$(foreach f,$(filter-out $(FUZZ_PROGRAM) relay,$(FUZZ)),$(eval $(call fuzz_rules,$f)))

fuzz-targets: $(FUZZ:%=$O/fuzz/%)

# ---- another compiler's opinion

# make CC=clang syntax: its warnings of every source of ours, without building anything.
SYNTAX_MAIN := $(CORE_SRC) $(wildcard src/*.c) $(TOOL_SRC)
SYNTAX_MODULES := $(foreach m,$(MODULES),$(wildcard modules/$m/*.c))
SYNTAX_OTHER := $(wildcard t/lib/modules/*/*.c examples/*/*.c)
SYNTAX := $(SYNTAX_MAIN) $(SYNTAX_MODULES) $(SYNTAX_OTHER) $(UNIT_SRC)
.PHONY: $(SYNTAX:%=%.syntax)
syntax: $(SYNTAX:%=%.syntax)
$(SYNTAX:%=%.syntax): %.syntax: % | $O/include/.stamp $(PROTO_H) $O/hd_abi.h
	$(call say,SYNTAX,$<)$(CC) $(CFLAGS) -fsyntax-only $(SYNTAX_INC) $<
$(SYNTAX_MAIN:%=%.syntax): SYNTAX_INC = $(CORE_INC)
$(UNIT_SRC:%=%.syntax): SYNTAX_INC = $(CORE_INC) -I$O/include -Imodules -It/lib -I. $(MODULE_lua_CFLAGS)
$(SYNTAX_OTHER:%=%.syntax): SYNTAX_INC = $(CORE_INC) -I$O/include -Imodules
$(SYNTAX_MODULES:%=%.syntax): SYNTAX_INC = $(MODULE_INC) $(MODULE_$(word 2,$(subst /, ,$<))_CFLAGS)

# ---- for editors and analysers

compile_commands.json: $O/sources.list $O/Makefile auto/compile_commands
	@sh auto/compile_commands '$(CC) $(CFLAGS)' '$(CORE_INC)' '$(MODULE_INC)' \
	    $(CORE_SRC) $(wildcard src/*.c) $(UNIT_SRC) $(TOOL_SRC) \
	    $(foreach m,$(MODULES),$(wildcard modules/$m/*.c)) >$@.new && mv $@.new $@

OURS := $(shell find src modules t tools examples fuzz bench -name '*.[ch]' 2>/dev/null)
format:
	clang-format -i $(OURS)

lint:
	@perl tools/layers
	@perl tools/lint $(OURS)

# ---- installing

DESTDIR ?=
INC_PATH := $(PREFIX)/include/heddle
install: build headers
	install -d $(DESTDIR)$(dir $(SBIN_PATH)) $(DESTDIR)$(MODULES_PATH) \
	    $(DESTDIR)$(dir $(CONF_PATH)) $(DESTDIR)$(dir $(ERROR_LOG_PATH)) \
	    $(DESTDIR)$(dir $(PID_PATH)) $(DESTDIR)$(INC_PATH)/proto $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 755 $O/heddle $(DESTDIR)$(SBIN_PATH)
	for m in $(MODULE_SO); do install -m 755 $$m $(DESTDIR)$(MODULES_PATH) || exit 1; done
	install -m 644 $O/modules/modules.index $(DESTDIR)$(MODULES_PATH)
	for c in $(wildcard conf/*.conf) conf/mime.types; do \
	    to=$(DESTDIR)$(dir $(CONF_PATH))$${c#conf/}; \
	    test -e $$to || install -m 644 $$c $$to || exit 1; done
	cd $O/include && find . -name '*.h' | while read h; do \
	    install -D -m 644 $$h $(DESTDIR)$(INC_PATH)/$$h || exit 1; done
	for h in $(filter-out %_int.h,$(wildcard src/proto/*.h)); do \
	    install -D -m 644 $$h $(DESTDIR)$(INC_PATH)/proto/ || exit 1; done
	test ! -d $O/proto || { cd $O/proto && find . -name '*.h' | while read h; do \
	    install -D -m 644 $$h $(DESTDIR)$(INC_PATH)/proto/$$h || exit 1; done; }
	sh auto/pkgconfig $O $(PREFIX) $(MODULES_PATH) $(HD_VERSION) \
	    >$(DESTDIR)$(PREFIX)/lib/pkgconfig/heddle.pc
	test -z "$(UNIT_DIR)" || { install -d $(DESTDIR)$(UNIT_DIR) && \
	    sed 's,/opt/heddle/sbin/heddle,$(SBIN_PATH),; s,/opt/heddle is,$(PREFIX) is,' \
	        deploy/systemd/heddle.service >$(DESTDIR)$(UNIT_DIR)/heddle.service && \
	    install -m 644 deploy/systemd/heddle.socket $(DESTDIR)$(UNIT_DIR); }

clean:
	rm -rf $O compile_commands.json
	if [ $O = objs ]; then rm -f Makefile; fi
