/* Where libraries of CUDA are looked for. */

#include "graph/base/cuda_places.h"
#include "tests/support/environment.h"
#include "tests/support/text.h"

static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

static const char *const variables[] = {"CUDA_PATH",   "CUDA_HOME",    "XDG_DATA_HOME",
                                        "VIRTUAL_ENV", "CONDA_PREFIX", "HOME"};

static void forget_environment(void) {
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
}

static const char *put(fixture *f, const char *path) {
    return put_file(f, path, "");
}

static int place(fixture *f, const char *path) {
    const char **paths = qgc_cuda_candidates(names, 2, "cuda_nvrtc", f->arena);
    for (int i = 0; paths[i]; i++)
        if (strcmp(paths[i], path) == 0)
            return i;
    return -1;
}

static void without_anything_the_loader_is_asked(void **state) {
    forget_environment();
    assert_int_equal(place(*state, "libnvrtc.so.13"), 0);
    assert_int_equal(place(*state, "libnvrtc.so.12"), 1);
}

static void a_toolkit_that_is_named_comes_first_and_wheels_last(void **state) {
    fixture *f = *state;
    forget_environment();
    const char *toolkit = put(f, "toolkit/lib64/libnvrtc.so.12");
    const char *own = put(f, "data/qgc/cuda/nvidia/cu13/lib/libnvrtc.so.13");
    const char *venv = put(f, "venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    const char *conda = put(f, "conda/lib/libnvrtc.so.12");
    const char *user = put(f, "home/.local/lib/python3.9/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
    assert_int_equal(place(f, toolkit), -1);
    set_folder(f, "CUDA_PATH", "toolkit");
    set_folder(f, "XDG_DATA_HOME", "data");
    set_folder(f, "VIRTUAL_ENV", "venv");
    set_folder(f, "CONDA_PREFIX", "conda");
    set_folder(f, "HOME", "home");
    const int order[] = {place(f, toolkit), place(f, "libnvrtc.so.13"),
                         place(f, own),     place(f, venv),
                         place(f, conda),   place(f, user)};
    for (int i = 0; i < 6; i++) {
        assert_true(order[i] >= 0);
        assert_true(i == 0 || order[i] > order[i - 1]);
    }
    forget_environment();
}

static void the_command_puts_it_where_it_is_looked_for(void **state) {
    fixture *f = *state;
    forget_environment();
    set_folder(f, "HOME", "home");
    assert_string_equal(qgc_cuda_install("nvidia-cuda-nvrtc", f->arena),
                        "python3 -m pip install --target ~/.local/share/qgc/cuda nvidia-cuda-nvrtc");
    const char *at_home = put(f, "home/.local/share/qgc/cuda/nvidia/cu13/lib/libnvrtc.so.13");
    assert_true(place(f, at_home) >= 0);
    set_folder(f, "XDG_DATA_HOME", "data");
    has(qgc_cuda_install("nvidia-cuda-nvrtc", f->arena), fixture_path(f, "data/qgc/cuda"));
    assert_int_equal(place(f, at_home), -1);
    forget_environment();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(without_anything_the_loader_is_asked),
        FIXTURE_TEST(a_toolkit_that_is_named_comes_first_and_wheels_last),
        FIXTURE_TEST(the_command_puts_it_where_it_is_looked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
