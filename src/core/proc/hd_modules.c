#include "core/proc/hd_modules.h"
#include "core/base/hd_map.h"
#include "hd_auto_config.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *paths[HD_MODULES_TABLE_MAX]; /* by number; NULL: built in */

hd_str_t hd_module_path(uint16_t number)
{
    return number < HD_MODULES_TABLE_MAX ? hd_str_c(paths[number]) : HD_STR_NONE;
}

static hd_rc_t check_fits(const hd_module_t *m, hd_str_t path, hd_err_t *err)
{
    uint16_t other;

    if (m->abi >> 24 != HD_MODULE_ABI >> 24)
        return hd_err_set(err, HD_E_CONF,
                          "module \"%.*s\" has ABI %u, this heddle has %u: build it anew "
                          "against this heddle's hd_module.h",
                          HD_STR_ARG(path), m->abi >> 24, HD_MODULE_ABI_NUMBER);
    if (m->abi != HD_MODULE_ABI)
        return hd_err_set(err, HD_E_CONF,
                          "module \"%.*s\" was built with other headers (signature %08x, "
                          "this heddle has %08x): build it anew against this heddle's "
                          "hd_module.h",
                          HD_STR_ARG(path), m->abi, HD_MODULE_ABI);
    if (m->name == NULL)
        return hd_err_set(err, HD_E_CONF, "module \"%.*s\" has no name",
                          HD_STR_ARG(path));
    other = hd_module_find(hd_str_c(m->name));
    if (other != UINT16_MAX)
        return hd_err_set(err, HD_E_CONF, "module \"%s\" is already loaded%s%s", m->name,
                          paths[other] != NULL ? ", from " : ": it is built in",
                          paths[other] != NULL ? paths[other] : "");
    if (hd_modules_n() == HD_MODULES_TABLE_MAX)
        return hd_err_set(err, HD_E_LIMIT, "more than %d modules", HD_MODULES_TABLE_MAX);
    return HD_OK;
}

uint64_t hd_module_file(const char *path)
{
    struct stat st;
    uint64_t id[5];

    if (stat(path, &st) != 0)
        return 0;
    id[0] = (uint64_t)st.st_dev;
    id[1] = (uint64_t)st.st_ino;
    id[2] = (uint64_t)st.st_size;
    id[3] = (uint64_t)st.st_mtim.tv_sec;
    id[4] = (uint64_t)st.st_mtim.tv_nsec;
    return hd_hash64(id, sizeof(id), 1);
}

hd_rc_t hd_module_load(hd_str_t path, hd_err_t *err)
{
    char *name = strndup(path.data, path.len);
    const hd_module_t *m;
    void *object;

    hd_bug_on(name == NULL);
    object = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) {
        const char *why = dlerror();

        hd_ignore(hd_err_set(err, HD_E_CONF, "dlopen() \"%s\" failed (%s)", name,
                             why != NULL ? why : "no reason given"));
        free(name);
        return HD_ERROR;
    }
    m = dlsym(object, "hd_module");
    if (m == NULL)
        hd_ignore(hd_err_set(err, HD_E_CONF,
                             "\"%s\" is no module: it exports no hd_module", name));
    if (m == NULL || check_fits(m, path, err) != HD_OK) {
        hd_ignore(dlclose(object)); /* it did nothing yet */
        free(name);
        return HD_ERROR;
    }
    paths[hd_modules_n()] = name;
    hd_ignore(hd_module_add(m) == 0);
    return HD_OK;
}

uint16_t hd_module_by_type_url(hd_str_t url, const hd_xds_type_t **type)
{
    for (uint16_t i = 0; i < hd_modules_n(); i++) {
        const hd_xds_type_t *t = hd_module_get(i)->xds_types;

        for (; t != NULL && t->url != NULL; t++) {
            if (hd_str_eq(hd_str_c(t->url), url)) {
                *type = t;
                return i;
            }
        }
    }
    return UINT16_MAX;
}

hd_str_t hd_modules_dir(hd_pool_t *pool)
{
    char exe[1024];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    struct stat st;
    hd_str_t dir;

    while (n > 0 && exe[n - 1] != '/')
        n--;
    if (n > 0) {
        dir = hd_str_printf(pool, "%.*smodules", (int)n, exe);
        if (stat(hd_str_printf(pool, "%.*s/modules.index", HD_STR_ARG(dir)).data, &st) ==
            0)
            return dir;
    }
    return HD_STR(HD_MODULES_PATH);
}

/* --- DIR/modules.index --- */

#define INDEX_MAX_BYTES (1 << 20)

static hd_pool_t *index_pool;
static hd_map_t *index_lines; /* "directive NAME" -> char * file */
static hd_str_t index_dir, index_text;

static void read_line(hd_str_t line)
{
    ssize_t first = hd_str_find_char(line, ' '), second;
    hd_str_t rest;

    if (first <= 0)
        return;
    rest = hd_str_sub(line, (size_t)first + 1, SIZE_MAX);
    second = hd_str_find_char(rest, ' ');
    if (second <= 0 || (size_t)second + 1 >= rest.len)
        return;
    hd_ignore(hd_map_put(index_lines, hd_str_sub(line, 0, (size_t)(first + 1 + second)),
                         hd_str_to_c(index_pool, hd_str_sub(rest, (size_t)second + 1,
                                                            SIZE_MAX))) == NULL);
}

/* A missing index is an empty one: then modules are named by load_module. */
static void read_index(hd_str_t dir)
{
    char *text;
    hd_str_t rest, line;
    struct stat st;
    ssize_t n = -1;
    int fd;

    if (index_lines != NULL && hd_str_eq(index_dir, dir))
        return;
    if (index_pool != NULL) {
        hd_map_destroy(index_lines);
        hd_pool_destroy(index_pool);
    }
    index_pool = hd_pool_create(0);
    index_lines = hd_map_create();
    index_dir = hd_str_dup(index_pool, dir);
    index_text = HD_STR_NONE;
    fd = open(hd_str_printf(index_pool, "%.*s/modules.index", HD_STR_ARG(dir)).data,
              O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= INDEX_MAX_BYTES) {
        text = hd_pool_alloc_unaligned(index_pool, (size_t)st.st_size + 1);
        n = read(fd, text, (size_t)st.st_size);
        index_text = rest = hd_str_n(text, n > 0 ? (size_t)n : 0);
        while (n > 0 && hd_str_split(&rest, '\n', &line))
            read_line(line);
    }
    hd_ignore(close(fd)); /* was only read */
}

hd_str_t hd_module_index_find(hd_str_t dir, hd_str_t what, hd_str_t name, hd_pool_t *pool)
{
    const char *file;

    read_index(dir);
    file = hd_map_get(index_lines, hd_str_printf(pool, "%.*s %.*s", HD_STR_ARG(what),
                                                 HD_STR_ARG(name)));
    if (file == NULL)
        return HD_STR_NONE;
    return hd_str_printf(pool, "%.*s/%s", HD_STR_ARG(dir), file);
}

hd_rc_t hd_module_index_each(hd_str_t dir, hd_str_t what, hd_pool_t *pool,
                             hd_rc_t (*each)(hd_str_t path, hd_err_t *err), hd_err_t *err)
{
    hd_str_t rest, line, word, name, last = HD_STR_NONE;

    read_index(dir);
    rest = index_text;
    while (hd_str_split(&rest, '\n', &line)) {
        if (!hd_str_split(&line, ' ', &word) || !hd_str_eq(word, what) ||
            !hd_str_split(&line, ' ', &name) || line.len == 0 || hd_str_eq(line, last))
            continue;
        last = line;
        if (each(hd_str_printf(pool, "%.*s/%.*s", HD_STR_ARG(dir), HD_STR_ARG(line)),
                 err) != HD_OK)
            return HD_ERROR;
    }
    return HD_OK;
}
