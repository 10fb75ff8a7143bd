#include "tests/support/folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

const char *qgc_test_folder(qgc_arena *a) {
    char *folder = qgc_arena_strdup(a, "/tmp/qgc-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

const char *qgc_test_path(qgc_arena *a, const char *folder, const char *name) {
    return qgc_arena_printf(a, "%s/%s", folder, name);
}

const char *qgc_test_cache(const char *folder) {
    const char *shared = getenv("QGC_TEST_CACHE");
    return shared && *shared ? shared : folder;
}

const char *qgc_test_write(qgc_arena *a, const char *folder, const char *name, const void *data,
                           size_t bytes) {
    const char *path = qgc_test_path(a, folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
    return path;
}

void qgc_test_folder_drop(qgc_arena *a, const char *folder) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        const char *path = qgc_test_path(a, folder, e->d_name);
        struct stat is;
        assert_int_equal(lstat(path, &is), 0);
        if (S_ISDIR(is.st_mode)) /* itself, and not by a link: what a link leads to stays */
            qgc_test_folder_drop(a, path);
        else
            assert_int_equal(unlink(path), 0);
    }
    closedir(d);
    assert_int_equal(rmdir(folder), 0);
}
