/* Fuzz target: YAML to objects, into the model, out again. The text comes as a file,
 * comes again unchanged, is cut in half (a careless writer), and goes. What it finds goes
 * to regression/ with its fix. */
#include "control/hd_decode.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(hd_model_t *model, hd_str_t unit, hd_str_t text)
{
    static const hd_decode_conf_t conf = {HD_STR_INIT("cluster.local"),
                                          HD_STR_INIT("istio-system")};
    hd_pool_t *pool = hd_pool_create(0);
    hd_decoded_t d;
    size_t n;

    hd_decode_text(pool, &conf, unit, text, &d);
    if (hd_model_put_unit(model, unit, d.objs, d.n, &d.statuses, d.keep, NULL) != HD_OK)
        abort(); /* the limit is far */
    hd_model_commit(model);
    const hd_status_t *list = hd_model_statuses(model, &n);

    for (size_t i = 0; i < n; i++) {
        if (hd_status_print(pool, &list[i]).len == 0)
            abort();
    }
    hd_pool_destroy(pool);
}

static size_t count_changes(hd_model_t *model)
{
    size_t n;

    hd_model_changes(model, &n);
    hd_model_clear_changes(model);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_str_t text = hd_str_n((const char *)data, size);
    hd_model_t *model = hd_model_create(NULL);
    uint64_t generation;

    put(model, HD_STR("f"), text);
    count_changes(model);
    generation = hd_model_generation(model);
    put(model, HD_STR("f"), text);
    if (count_changes(model) != 0 || hd_model_generation(model) != generation)
        abort(); /* the same text is no change */
    put(model, HD_STR("f"), hd_str_sub(text, 0, size / 2));
    put(model, HD_STR("g"), text);
    hd_model_remove_unit(model, HD_STR("f"));
    hd_model_commit(model);
    hd_model_destroy(model); /* asserts that no key is left */
    return 0;
}
