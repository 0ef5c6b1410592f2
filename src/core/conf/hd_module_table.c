#include "core/conf/hd_module_table.h"
#include "core/hd_module.h"

static const hd_module_t *table[HD_MODULES_TABLE_MAX];
static uint16_t table_n;

uint16_t hd_module_add(const hd_module_t *module)
{
    hd_bug_on(table_n == HD_MODULES_TABLE_MAX);
    table[table_n] = module;
    if (module->attributes != NULL)
        hd_attr_register(module->attributes);
    return table_n++;
}

const hd_module_t *hd_module_get(uint16_t number)
{
    return number < table_n ? table[number] : NULL;
}

uint16_t hd_modules_n(void)
{
    return table_n;
}

uint16_t hd_module_find(hd_str_t name)
{
    for (uint16_t i = 0; i < table_n; i++)
        if (hd_str_eq(hd_str_c(table[i]->name), name))
            return i;
    return UINT16_MAX;
}

uint16_t hd_module_number(const hd_module_t *m)
{
    for (uint16_t i = 0; i < table_n; i++)
        if (table[i] == m)
            return i;
    return UINT16_MAX;
}
