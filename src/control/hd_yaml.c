#include "control/hd_yaml.h"
#include "core/base/hd_map.h"
#include <stdlib.h>
#include <yaml.h>

#define HASH_AT 16 /* from so many keys on, duplicates are found by a table */

/* A list or map being built. */
typedef struct {
    hd_yaml_t *node;
    hd_yaml_entry_t *entries;
    size_t room;
    hd_str_t key; /* a map's, waiting for its value */
    uint32_t key_line;
    bool has_key;
    hd_map_t *keys; /* NULL: few */
    hd_str_t anchor;
} frame_t;

typedef struct {
    hd_pool_t *pool;
    hd_err_t *err;
    uint32_t line; /* of the event at hand */
    frame_t stack[HD_YAML_DEPTH_MAX];
    uint32_t depth;
    hd_map_t *anchors; /* of this document, made when first used */
    uint64_t nodes_n;  /* of the file, expanded */
    const hd_yaml_t *root;
    const hd_yaml_t **docs;
    size_t docs_n, docs_room;
} builder_t;

static void *grow(hd_pool_t *pool, const void *old, size_t n, size_t bytes, size_t *room)
{
    void *p;

    *room = *room == 0 ? 4 : *room * 2;
    p = hd_pool_alloc(pool, *room * bytes);
    if (n != 0)
        memcpy(p, old, n * bytes);
    return p;
}

static hd_rc_t add_key(builder_t *b, frame_t *f, const hd_yaml_t *node)
{
    bool twice = false;

    if (node->type != HD_YAML_SCALAR)
        return hd_err_set(b->err, HD_E_CONF, "a key must be a word, not %s",
                          hd_yaml_what(node));
    if (hd_str_eq(node->text, HD_STR("<<")) && !node->quoted)
        return hd_err_set(b->err, HD_E_CONF,
                          "merge keys (<<) are not supported: write the fields out");
    if (f->keys != NULL) {
        twice = hd_map_get(f->keys, node->text) != NULL;
    } else {
        for (uint32_t i = 0; i < f->node->n && !twice; i++)
            twice = hd_str_eq(f->entries[i].key, node->text);
    }
    if (twice)
        return hd_err_set(b->err, HD_E_CONF, "duplicate key \"%.*s\"",
                          HD_STR_ARG(hd_str_sub(node->text, 0, 100)));
    f->key = node->text;
    f->key_line = node->line;
    f->has_key = true;
    return HD_OK;
}

static void add_entry(builder_t *b, frame_t *f, const hd_yaml_t *node)
{
    hd_yaml_t *parent = f->node;

    if (parent->n == f->room)
        f->entries =
            grow(b->pool, f->entries, parent->n, sizeof(hd_yaml_entry_t), &f->room);
    f->entries[parent->n++] =
        (hd_yaml_entry_t){f->key, f->has_key ? f->key_line : node->line, node};
    if (parent->type == HD_YAML_MAP && f->keys == NULL && parent->n == HASH_AT) {
        f->keys = hd_map_create();
        for (uint32_t i = 0; i < parent->n; i++)
            hd_map_put(f->keys, f->entries[i].key, parent);
    } else if (f->keys != NULL) {
        hd_map_put(f->keys, f->key, parent);
    }
    f->has_key = false;
    parent->_height = hd_max(parent->_height, node->_height + 1);
    parent->_weight += node->_weight;
}

/* <node> is whole: it goes where it belongs. */
static hd_rc_t put_node(builder_t *b, const hd_yaml_t *node, hd_str_t anchor)
{
    frame_t *f;

    if (anchor.len != 0) {
        if (b->anchors == NULL)
            b->anchors = hd_map_create();
        hd_map_put(b->anchors, anchor, (void *)node);
    }
    if (b->depth == 0) {
        b->root = node;
        return HD_OK;
    }
    f = &b->stack[b->depth - 1];
    if (f->node->type == HD_YAML_MAP && !f->has_key)
        return add_key(b, f, node);
    add_entry(b, f, node);
    return HD_OK;
}

/* Counts <n> nodes more. */
static hd_rc_t count_nodes(builder_t *b, uint32_t n)
{
    b->nodes_n += n;
    if (b->nodes_n > HD_YAML_NODES_MAX)
        return hd_err_set(b->err, HD_E_LIMIT,
                          "more than %u values, with aliases expanded",
                          HD_YAML_NODES_MAX);
    return HD_OK;
}

static hd_rc_t read_text(builder_t *b, const yaml_char_t *data, size_t len,
                         hd_str_t *text)
{
    if (len != 0 && memchr(data, 0, len) != NULL)
        return hd_err_set(b->err, HD_E_CONF, "a zero byte in a text");
    *text = hd_str_dup(b->pool, hd_str_n((const char *)data, len));
    return HD_OK;
}

static hd_str_t read_anchor(builder_t *b, const yaml_char_t *name)
{
    return name == NULL ? HD_STR_NONE : hd_str_dup(b->pool, hd_str_c((const char *)name));
}

static hd_rc_t read_tag(builder_t *b, const yaml_char_t *tag, bool *is_text)
{
    hd_str_t name = hd_str_c((const char *)tag);

    *is_text = hd_str_eq(name, HD_STR(YAML_STR_TAG)) || hd_str_eq(name, HD_STR("!"));
    if (tag != NULL && !*is_text)
        return hd_err_set(b->err, HD_E_CONF, "tag \"%.*s\" is not supported",
                          HD_STR_ARG(hd_str_sub(name, 0, 60)));
    return HD_OK;
}

static hd_yaml_t *new_node(builder_t *b, hd_yaml_type_t type, const yaml_event_t *ev)
{
    hd_yaml_t *node = hd_pool_new(b->pool, hd_yaml_t);

    node->type = type;
    node->line = b->line;
    node->column = (uint32_t)ev->start_mark.column + 1;
    node->_height = node->_weight = 1;
    return node;
}

static hd_rc_t on_scalar(builder_t *b, const yaml_event_t *ev)
{
    hd_yaml_t *node = new_node(b, HD_YAML_SCALAR, ev);
    bool is_text;

    if (count_nodes(b, 1) != HD_OK ||
        read_tag(b, ev->data.scalar.tag, &is_text) != HD_OK ||
        read_text(b, ev->data.scalar.value, ev->data.scalar.length, &node->text) != HD_OK)
        return HD_ERROR;
    node->quoted = is_text || ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return put_node(b, node, read_anchor(b, ev->data.scalar.anchor));
}

static hd_rc_t on_start(builder_t *b, const yaml_event_t *ev, hd_yaml_type_t type)
{
    bool is_map = type == HD_YAML_MAP, is_text;
    const yaml_char_t *tag =
        is_map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag;
    frame_t *f;

    if (count_nodes(b, 1) != HD_OK || read_tag(b, tag, &is_text) != HD_OK)
        return HD_ERROR;
    if (is_text)
        return hd_err_set(b->err, HD_E_CONF, "!!str on what isn't a text");
    if (b->depth == HD_YAML_DEPTH_MAX)
        return hd_err_set(b->err, HD_E_LIMIT, "nested deeper than %u levels",
                          HD_YAML_DEPTH_MAX);
    f = &b->stack[b->depth++];
    *f = (frame_t){.node = new_node(b, type, ev),
                   .anchor = read_anchor(b, is_map ? ev->data.mapping_start.anchor
                                                   : ev->data.sequence_start.anchor)};
    return HD_OK;
}

static hd_rc_t on_end(builder_t *b)
{
    frame_t *f;

    if (b->depth == 0)
        return hd_err_set(b->err, HD_E_CONF, "an end without a start");
    f = &b->stack[--b->depth];
    f->node->entries = f->entries;
    hd_map_destroy(f->keys);
    f->keys = NULL;
    return put_node(b, f->node, f->anchor);
}

static hd_rc_t on_alias(builder_t *b, const yaml_event_t *ev)
{
    hd_str_t name = hd_str_c((const char *)ev->data.alias.anchor);
    const hd_yaml_t *node = NULL;

    if (b->anchors != NULL)
        node = hd_map_get(b->anchors, name);
    if (node == NULL) /* an alias inside what it names, too: no cycles */
        return hd_err_set(b->err, HD_E_CONF, "alias *%.*s: no such anchor before it",
                          (int)hd_min(name.len, 60), name.data);
    if (b->depth + node->_height > HD_YAML_DEPTH_MAX)
        return hd_err_set(b->err, HD_E_LIMIT, "nested deeper than %u levels",
                          HD_YAML_DEPTH_MAX);
    if (count_nodes(b, node->_weight) != HD_OK)
        return HD_ERROR;
    return put_node(b, node, HD_STR_NONE);
}

static void end_document(builder_t *b)
{
    hd_map_destroy(b->anchors);
    b->anchors = NULL;
}

static hd_rc_t on_document_end(builder_t *b)
{
    end_document(b);
    if (b->docs_n == HD_YAML_DOCS_MAX)
        return hd_err_set(b->err, HD_E_LIMIT, "more than %u documents", HD_YAML_DOCS_MAX);
    if (b->docs_n == b->docs_room)
        b->docs = grow(b->pool, b->docs, b->docs_n, sizeof(*b->docs), &b->docs_room);
    if (b->root == NULL)
        b->root = hd_pool_new(b->pool, hd_yaml_t);
    b->docs[b->docs_n++] = b->root;
    b->root = NULL;
    return HD_OK;
}

static hd_rc_t on_event(builder_t *b, const yaml_event_t *ev)
{
    b->line = (uint32_t)ev->start_mark.line + 1;
    switch (ev->type) {
    case YAML_MAPPING_START_EVENT:
        return on_start(b, ev, HD_YAML_MAP);
    case YAML_SEQUENCE_START_EVENT:
        return on_start(b, ev, HD_YAML_LIST);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        return on_end(b);
    case YAML_SCALAR_EVENT:
        return on_scalar(b, ev);
    case YAML_ALIAS_EVENT:
        return on_alias(b, ev);
    case YAML_DOCUMENT_END_EVENT:
        return on_document_end(b);
    default:
        return HD_OK;
    }
}

/* What libyaml found wrong. */
static hd_rc_t take_error(const yaml_parser_t *parser, uint32_t *line, hd_err_t *err)
{
    const char *problem = parser->problem != NULL ? parser->problem : "out of memory?";

    if (parser->error != YAML_READER_ERROR) /* that has an offset only */
        *line = (uint32_t)parser->problem_mark.line + 1;
    if (parser->context != NULL)
        return hd_err_set(err, HD_E_CONF, "not YAML: %s, %s", parser->context, problem);
    return hd_err_set(err, HD_E_CONF, "not YAML: %s", problem);
}

static hd_rc_t parse_events(builder_t *b, yaml_parser_t *parser, uint32_t *err_line)
{
    for (;;) {
        yaml_event_t ev;
        hd_rc_t rc;
        bool last;

        if (yaml_parser_parse(parser, &ev) == 0) {
            *err_line = b->line;
            return take_error(parser, err_line, b->err);
        }
        last = ev.type == YAML_STREAM_END_EVENT;
        rc = on_event(b, &ev);
        yaml_event_delete(&ev);
        if (rc != HD_OK) {
            *err_line = b->line;
            return rc;
        }
        if (last)
            return HD_OK;
    }
}

hd_rc_t hd_yaml_parse(hd_pool_t *pool, hd_str_t text, const hd_yaml_t *const **docs,
                      size_t *docs_n, uint32_t *err_line, hd_err_t *err)
{
    builder_t b = {.pool = pool, .err = err};
    yaml_parser_t parser;
    hd_rc_t rc;

    *docs = NULL;
    *docs_n = 0;
    *err_line = 0;
    if (text.len > HD_YAML_BYTES_MAX)
        return hd_err_set(err, HD_E_LIMIT, "larger than %u bytes", HD_YAML_BYTES_MAX);
    if (yaml_parser_initialize(&parser) == 0)
        return hd_err_set(err, HD_E_SYS, "no YAML parser: out of memory?");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.data, text.len);
    rc = parse_events(&b, &parser, err_line);
    yaml_parser_delete(&parser);
    end_document(&b);
    for (uint32_t i = 0; i < b.depth; i++)
        hd_map_destroy(b.stack[i].keys);
    *docs = b.docs;
    *docs_n = b.docs_n;
    return rc;
}

const hd_yaml_t *hd_yaml_get(const hd_yaml_t *map, const char *key)
{
    if (map == NULL || map->type != HD_YAML_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->n; i++) {
        if (hd_str_eq(map->entries[i].key, hd_str_c(key)))
            return map->entries[i].value;
    }
    return NULL;
}

bool hd_yaml_is_null(const hd_yaml_t *node)
{
    return node == NULL || (node->type == HD_YAML_SCALAR && !node->quoted &&
                            (node->text.len == 0 || hd_str_eq(node->text, HD_STR("~")) ||
                             hd_str_eq(node->text, HD_STR("null")) ||
                             hd_str_eq(node->text, HD_STR("Null")) ||
                             hd_str_eq(node->text, HD_STR("NULL"))));
}

bool hd_yaml_is_bool(const hd_yaml_t *node, bool *value)
{
    if (node->type != HD_YAML_SCALAR || node->quoted)
        return false;
    *value = hd_str_eq_nocase(node->text, HD_STR("true"));
    return *value || hd_str_eq_nocase(node->text, HD_STR("false"));
}

bool hd_yaml_is_number(const hd_yaml_t *node)
{
    char *end;

    if (node->type != HD_YAML_SCALAR || node->quoted || node->text.len == 0)
        return false;
    if (strchr("+-.0123456789", node->text.data[0]) == NULL)
        return false;
    hd_ignore(strtod(node->text.data, &end) > 0); /* only where it ends matters */
    return end == node->text.data + node->text.len;
}

const char *hd_yaml_what(const hd_yaml_t *node)
{
    bool value;

    if (node->type == HD_YAML_MAP)
        return "a map";
    if (node->type == HD_YAML_LIST)
        return "a list";
    if (hd_yaml_is_null(node))
        return "nothing";
    if (hd_yaml_is_bool(node, &value))
        return value ? "true" : "false";
    return hd_yaml_is_number(node) ? "a number" : "a text";
}

/* Recursive: hd_yaml_parse has bounded the depth. */
static uint64_t add_digest(const hd_yaml_t *node, uint64_t seed)
{
    struct {
        uint32_t type, quoted, n, zero;
    } head = {node->type, node->quoted, node->n, 0};

    seed = hd_hash64(&head, sizeof(head), seed);
    seed = hd_hash64(node->text.data, node->text.len, seed);
    for (uint32_t i = 0; i < node->n; i++) {
        const hd_yaml_entry_t *e = &node->entries[i];

        seed = hd_hash64(e->key.data, e->key.len, seed);
        seed = add_digest(e->value, seed);
    }
    return seed;
}

uint64_t hd_yaml_digest(const hd_yaml_t *node)
{
    return add_digest(node, 1);
}
