/* translate: what the control plane would send to a proxy, without a mesh running.
 *
 *     translate DIRECTORY NODE.json
 *
 * DIRECTORY holds YAML as `config_dir` does; NODE.json is the proxy's xDS node: {"id": …,
 * "metadata": {…}, "locality": "REGION/ZONE/SUBZONE"}. Prints one JSON object: a type's
 * full name to a list of {"name", "resource"}, in the order of names. Findings go to
 * stderr. */
#include "control/hd_decode.h"
#include "control/hd_source_dir.h"
#include "control/hd_translate.h"
#include "core/base/hd_log.h"
#include "core/net/hd_loop.h"
#include "proto/hd_pb_json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static void die(const char *what, const char *why)
{
    fprintf(stderr, "translate: %s: %s\n", what, why);
    exit(1);
}

static hd_pool_t *pool; /* until the end of the program */

static Pb__Struct *read_struct(json_t *json);

static Pb__Value *read_value(json_t *json)
{
    Pb__Value *v = hd_pool_calloc(pool, sizeof(*v));

    pb__value__init(v);
    if (json_is_string(json)) {
        v->kind_case = PB__VALUE__KIND_STRING_VALUE;
        v->string_value = json_string_value(json);
    } else if (json_is_number(json)) {
        v->kind_case = PB__VALUE__KIND_NUMBER_VALUE;
        v->number_value = json_number_value(json);
    } else if (json_is_boolean(json)) {
        v->kind_case = PB__VALUE__KIND_BOOL_VALUE;
        v->bool_value = json_is_true(json);
    } else if (json_is_object(json)) {
        v->kind_case = PB__VALUE__KIND_STRUCT_VALUE;
        v->struct_value = read_struct(json);
    } else {
        v->kind_case = PB__VALUE__KIND_NULL_VALUE;
    }
    return v;
}

static Pb__Struct *read_struct(json_t *json)
{
    Pb__Struct *s = hd_pool_calloc(pool, sizeof(*s));
    const char *key;
    json_t *value;

    pb__struct__init(s);
    s->fields = hd_pool_calloc(pool, (json_object_size(json) + 1) * sizeof(s->fields[0]));
    json_object_foreach(json, key, value)
    {
        Pb__Struct__FieldsEntry *e = hd_pool_calloc(pool, sizeof(*e));

        pb__struct__fields_entry__init(e);
        e->key = key;
        e->value = read_value(value);
        s->fields[s->n_fields++] = e;
    }
    return s;
}

static void free_json(void *json)
{
    json_decref(json);
}

static void read_proxy(const char *file, hd_proxy_t *proxy)
{
    json_error_t error;
    json_t *json = json_load_file(file, 0, &error);
    PbCore__Node node = PB_CORE__NODE__INIT;
    hd_err_t err = {0};

    if (json == NULL)
        die(file, error.text);
    hd_pool_defer(pool, free_json, json); /* strings of it are used */
    node.id = json_string_value(json_object_get(json, "id"));
    if (node.id == NULL)
        die(file, "no id");
    node.metadata = read_struct(json_object_get(json, "metadata"));
    if (hd_proxy_read(&node, pool, proxy, &err) != HD_OK)
        die(file, err.text);
}

static void print_set(const hd_view_t *view, hd_view_kind_t kind)
{
    const hd_xres_set_t *set = &view->sets[kind];
    const char *url = hd_view_url(kind);
    hd_pb_json_opts_t opts = {0};

    printf("\"%s\": [", strrchr(url, '/') + 1);
    for (uint32_t i = 0; i < set->n; i++) {
        hd_pb_arena_t arena;
        hd_pb_fault_t fault;
        const void *msg;

        hd_pb_arena_init(&arena, (size_t)1 << 30);
        msg = hd_pb_unpack(hd_pb_find_type(url), set->items[i]->bytes.data,
                           set->items[i]->bytes.len, &arena, &fault);
        if (msg == NULL)
            die(url, "what was made can't be read");
        printf("%s{\"name\": \"%.*s\", \"resource\": ", i > 0 ? ",\n" : "\n",
               HD_STR_ARG(set->items[i]->name));
        if (hd_pb_to_json(msg, &opts, hd_pb_write_file, stdout, &fault) != HD_PB_OK)
            die(url, "what was made can't be printed");
        printf("}");
        hd_pb_arena_deinit(&arena);
    }
    printf("]");
}

static void print_findings(hd_model_t *model)
{
    size_t n;
    const hd_status_t *list = hd_model_statuses(model, &n);

    for (size_t i = 0; i < n; i++) {
        hd_str_t text = hd_status_print(pool, &list[i]);

        fprintf(stderr, "%.*s\n", HD_STR_ARG(text));
    }
}

int main(int argc, char **argv)
{
    hd_err_t err = {0};
    hd_loop_t *loop = hd_loop_create(NULL, 64, &err);
    hd_model_t *model = hd_model_create(NULL);
    hd_source_dir_t *source;
    hd_translator_t *translator;
    hd_proxy_t proxy;
    hd_view_t view;

    pool = hd_pool_create(0);
    if (argc != 3)
        die("usage", "translate DIRECTORY NODE.json");
    if (loop == NULL)
        die("loop", err.text);
    if (hd_source_dir_create(loop, model,
                             &(hd_source_dir_conf_t){.path = hd_str_c(argv[1])}, &source,
                             &err) != HD_OK)
        die(argv[1], err.text);
    print_findings(model);
    read_proxy(argv[2], &proxy);
    translator = hd_translator_create(model, HD_STR("cluster.local"));
    hd_view_init(&view);
    if (hd_translate(translator, &proxy, &view, &err) != HD_OK)
        die(argv[2], err.text);
    printf("{");
    for (unsigned k = 0; k < HD_VIEW_KINDS_N; k++) {
        printf("%s\n", k > 0 ? "," : "");
        print_set(&view, (hd_view_kind_t)k);
    }
    printf("}\n");
    hd_view_deinit(&view);
    hd_translator_destroy(translator);
    hd_source_dir_destroy(source);
    hd_model_destroy(model);
    hd_loop_destroy(loop);
    hd_pool_destroy(pool);
    return 0;
}
