/* hd_decode: YAML documents to objects of the model.
 *
 * Each kind is described by tables: a field is declared once, with its type, its place in
 * the struct, what it may hold. The engine (hd_decode.c) reads by them and reports, with
 * place and path, fields that nobody knows, wrong types, missing and forbidden values.
 *
 *     reviews.yaml:7: unknown field spec.htp: did you mean http? Allowed are …
 *
 * All errors of a document are reported, up to a bound; one error and the document gives
 * no object. Fields that are known but have no effect yet are warnings.
 */
#pragma once
#include "control/hd_model.h"
#include "control/hd_yaml.h"

typedef struct {
    hd_str_t cluster_domain, root_namespace;
} hd_decode_conf_t;

/* What a text gave: lies in the pool it was decoded into, but for the objects, which are
 * the caller's. */
typedef struct {
    hd_object_t **objs;
    size_t n;
    hd_statuses_t statuses;
    hd_keep_t keep; /* what hd_model_put_unit shall keep of the former objects */
} hd_decoded_t;

/* All documents of <text>; <unit> is its name in places. Never fails: what is wrong is in
 * the statuses. */
void hd_decode_text(hd_pool_t *pool, const hd_decode_conf_t *conf, hd_str_t unit,
                    hd_str_t text, hd_decoded_t *out);
