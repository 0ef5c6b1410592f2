#include "control/hd_status_list.h"

void hd_status_list_init(hd_status_list_t *list, hd_pool_t *pool)
{
    *list = (hd_status_list_t){.pool = pool};
    hd_array_init(&list->items, pool, sizeof(hd_status_t), HD_STATUSES_MAX + 1);
}

static hd_status_t dup_status(hd_pool_t *pool, const hd_status_t *s)
{
    hd_status_t copy = *s;

    copy.code = hd_str_dup(pool, s->code);
    copy.place.file = hd_str_dup(pool, s->place.file);
    copy.kind = hd_str_dup(pool, s->kind);
    copy.ns = hd_str_dup(pool, s->ns);
    copy.name = hd_str_dup(pool, s->name);
    copy.text = hd_str_dup(pool, s->text);
    return copy;
}

void hd_status_list_add(hd_status_list_t *list, const hd_status_t *s)
{
    hd_status_t *item;

    if (s->severity == HD_STATUS_ERROR)
        list->errors_n++;
    if (list->full)
        return;
    item = hd_array_add(&list->items);
    hd_assert(item != NULL);
    *item = dup_status(list->pool, s);
    if (list->items.n == HD_STATUSES_MAX) {
        list->full = true;
        item = hd_array_add(&list->items);
        *item = (hd_status_t){.severity = HD_STATUS_ERROR,
                              .place = {dup_status(list->pool, s).place.file, 0, 0},
                              .text = HD_STR("and more findings: not shown")};
    }
}

hd_statuses_t hd_status_list_end(const hd_status_list_t *list)
{
    return (hd_statuses_t){list->items.items, list->items.n};
}

hd_statuses_t hd_statuses_dup(hd_pool_t *pool, const hd_statuses_t *from)
{
    hd_status_t *items;

    if (from->n == 0)
        return (hd_statuses_t){NULL, 0};
    items = hd_pool_new_n(pool, hd_status_t, from->n);
    for (size_t i = 0; i < from->n; i++)
        items[i] = dup_status(pool, &from->items[i]);
    return (hd_statuses_t){items, from->n};
}

int hd_status_cmp(const void *a, const void *b)
{
    const hd_status_t *x = a, *y = b;
    int c;

    if (x->severity != y->severity)
        return x->severity < y->severity ? -1 : 1;
    if ((c = hd_str_cmp(x->place.file, y->place.file)) != 0)
        return c;
    if (x->place.line != y->place.line)
        return x->place.line < y->place.line ? -1 : 1;
    return hd_str_cmp(x->text, y->text);
}

hd_str_t hd_status_print(hd_pool_t *pool, const hd_status_t *s)
{
    static const char *const words[] = {[HD_STATUS_ERROR] = "error",
                                        [HD_STATUS_WARNING] = "warning",
                                        [HD_STATUS_INFO] = "note"};
    hd_str_t line = HD_STR("");

    if (s->place.line != 0)
        line = hd_str_printf(pool, ":%u", s->place.line);
    return hd_str_printf(pool, "%.*s%.*s: %s%s%.*s: %.*s", HD_STR_ARG(s->place.file),
                         HD_STR_ARG(line), words[s->severity], s->code.len > 0 ? " " : "",
                         HD_STR_ARG(s->code), HD_STR_ARG(s->text));
}
