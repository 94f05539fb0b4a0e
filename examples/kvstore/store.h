/* The values by name, in a sorted array: a hostile choice of names cannot make it slow, as it could a hash table. */

#ifndef STORE_H
#define STORE_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { STORE_MAX_NAME = 128, STORE_MAX_VALUES = 16 * 1024, STORE_MAX_BYTES = 64 * 1024 * 1024 };

enum store_result { STORE_NEW, STORE_REPLACED, STORE_FULL };

struct store_value {
    size_t name_length, length;
    const char *data;
    char name[];
};

static struct store_value *store_values[STORE_MAX_VALUES];
static size_t store_count, store_bytes;

/* Letters, digits and "-._~" (the unreserved characters of RFC 3986), but neither "." nor "..". */
static int store_name_is_valid(const char *name, size_t length)
{
    if (length == 0 || length > STORE_MAX_NAME || (length <= 2 && memcmp(name, "..", length) == 0))
        return 0;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        int letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter && c != '-' && c != '.' && c != '_' && c != '~')
            return 0;
    }
    return 1;
}

static int store_compare(const struct store_value *value, const char *name, size_t length)
{
    size_t shorter = value->name_length < length ? value->name_length : length;
    int order = memcmp(value->name, name, shorter);
    return order ? order : (value->name_length > length) - (value->name_length < length);
}

/* Where a name is, or where it would be. */
static size_t store_place(const char *name, size_t length, int *found)
{
    size_t low = 0, high = store_count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = store_compare(store_values[middle], name, length);
        if (order == 0) {
            *found = 1;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = 0;
    return low;
}

static const struct store_value *store_get(const char *name, size_t length)
{
    int found;
    size_t at = store_place(name, length, &found);
    return found ? store_values[at] : NULL;
}

static size_t store_size(const struct store_value *value)
{
    return sizeof *value + value->name_length + value->length;
}

static enum store_result store_put(const char *name, size_t name_length, const char *data, size_t length)
{
    int found;
    size_t at = store_place(name, name_length, &found);
    size_t size = sizeof(struct store_value) + name_length + length;
    size_t freed = found ? store_size(store_values[at]) : 0;
    struct store_value *value;

    if ((!found && store_count == STORE_MAX_VALUES) || store_bytes - freed + size > STORE_MAX_BYTES)
        return STORE_FULL;
    if (!(value = malloc(size)))
        return STORE_FULL;
    value->name_length = name_length;
    value->length = length;
    memcpy(value->name, name, name_length);
    memcpy(value->name + name_length, data, length);
    value->data = value->name + name_length;
    if (found) {
        free(store_values[at]);
    } else {
        memmove(store_values + at + 1, store_values + at, (store_count - at) * sizeof *store_values);
        store_count++;
    }
    store_values[at] = value;
    store_bytes += size - freed;
    return found ? STORE_REPLACED : STORE_NEW;
}

static int store_delete(const char *name, size_t length)
{
    int found;
    size_t at = store_place(name, length, &found);

    if (!found)
        return 0;
    store_bytes -= store_size(store_values[at]);
    free(store_values[at]);
    store_count--;
    memmove(store_values + at, store_values + at + 1, (store_count - at) * sizeof *store_values);
    return 1;
}

#endif
