#include "core/proc/hd_print.h"
#include "core/proc/hd_modules.h"
#include <stdio.h>
#include <string.h>

static void print_json(const char *key, const char *text, const char *end)
{
    printf("\"%s\": \"", key);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text < 0x20)
            printf("\\u%04x", (unsigned char)*text);
        else
            putchar(*text);
    }
    printf("\"%s", end);
}

static int load_all(int n, char **files)
{
    hd_err_t err = {0};

    for (int i = 0; i < n; i++) {
        if (hd_module_load(hd_str_c(files[i]), &err) != HD_OK) {
            fprintf(stderr, "heddle: %s\n", err.text);
            return 1;
        }
    }
    return 0;
}

static int print_directives(int n, char **files)
{
    const hd_module_t *module;
    const hd_directive_t *d;
    char scopes[256];
    uint32_t at = 0;

    if (load_all(n, files) != 0)
        return 1;
    while (hd_directives_next(&at, &module, &d)) {
        printf("{");
        print_json("name", d->name, ", ");
        print_json("module", module->name, ", ");
        print_json("contexts", hd_scope_names(d->scope, scopes, sizeof(scopes)).data,
                   ", ");
        printf("\"block\": %s, \"repeats\": %s, \"args_min\": %u, \"args_max\": %d, ",
               d->block != NULL ? "true" : "false", d->repeats ? "true" : "false",
               d->args_n,
               d->args_max == HD_ARGS_ANY ? -1
               : d->args_max != 0         ? d->args_max
                                          : d->args_n);
        print_json("help", d->help != NULL ? d->help : "", "}\n");
    }
    return 0;
}

static int print_index(int n, char **files)
{
    uint16_t built_in = hd_modules_n();

    if (load_all(n, files) != 0)
        return 1;
    for (int i = 0; i < n; i++) {
        const hd_module_t *m = hd_module_get((uint16_t)(built_in + i));
        const char *slash = strrchr(files[i], '/');
        const char *file = slash != NULL ? slash + 1 : files[i];

        for (const hd_directive_t *d = m->directives; d != NULL && d->name != NULL; d++)
            printf("directive %s %s\n", d->name, file);
        for (const hd_xds_type_t *t = m->xds_types; t != NULL && t->url != NULL; t++)
            printf("type %s %s\n", t->url, file);
        for (const hd_attr_def_t *a = m->attributes; a != NULL && a->name != NULL; a++)
            printf("variable %s %s\n", a->name, file);
    }
    return 0;
}

int hd_print_main(int argc, char **argv)
{
    if (strcmp(argv[0], "--print-directives") == 0)
        return print_directives(argc - 1, argv + 1);
    if (strcmp(argv[0], "--print-module-index") == 0)
        return print_index(argc - 1, argv + 1);
    fprintf(stderr, "heddle: invalid option: \"%s\"\n", argv[0]);
    return 1;
}
