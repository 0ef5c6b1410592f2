/* program: the parts and modules of the whole program, as it registers them, and a world
 * to build into, for targets of configuration. The modules are those of the build
 * directory above the target's, without Lua's, which would run what it reads. */
#pragma once
#include "core/conf/hd_module_table.h"
#include "core/loom/hd_batch.h"
#include "core/proc/hd_modules.h"
#include "hd_program.h"
#include "../../t/lib/loom_test.h"
#include <glob.h>
#include <unistd.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char dir[1024], pattern[1100];
    ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir));
    glob_t files;
    hd_err_t err = {0};

    (void)argc, (void)argv;
    hd_log_level = HD_LOG_ALERT;
    hd_program_register();
    while (n > 0 && dir[n - 1] != '/')
        n--;
    (void)snprintf(pattern, sizeof(pattern), "%.*s../modules/hd_*.so", (int)n, dir);
    hd_bug_on(glob(pattern, 0, NULL, &files) != 0);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        if (strstr(files.gl_pathv[i], "hd_lua_") == NULL)
            hd_bug_on(hd_module_load(hd_str_c(files.gl_pathv[i]), &err) != HD_OK);
    }
    globfree(&files);
    return 0;
}

/* --- where it is built --- */

#define INPUTS_PER_WORLD 300 /* slots are never given back */

static hd_state_t *state;
static hd_arena_t *arena;
static hd_member_t *member;

static void start_world(int arena_kind, hd_member_kind_t kind)
{
    hd_err_t err = {0};

    state = loom_state();
    arena = loom_arena(state, arena_kind, (size_t)64 << 20);
    member = hd_member_start(state, -1, kind, &err);
    hd_bug_on(member == NULL || hd_arena_open_writer(arena, member, &err) != HD_OK);
    hd_member_add_arena(member, arena);
}

TAP_UNUSED static void end_world(void)
{
    hd_member_stop(member);
    hd_arena_destroy(arena);
    hd_state_destroy(state);
}
