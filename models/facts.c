#include <math.h>
#include <string.h>

#include "graph/base/str.h"
#include "models/bind_impl.h"

/* Each key of a file that changes the numbers is compared with the graph, known to mean nothing, or refused. */

typedef enum { FORMAT_HF, FORMAT_GGUF } fact_format;

typedef struct {
    fact_format format;
    const char *key;
    const char *words; /* " a b ", or NULL: a number */
    double number;     /* NaN: no value is computed */
} fact;

#define NUMBER(format, key, number) {FORMAT_##format, key, NULL, number},
#define WORDS(format, key, words) {FORMAT_##format, key, words, NAN},
#define NONE(format, key) {FORMAT_##format, key, NULL, NAN},
static const fact facts[] = {
#include "models/facts.def"
};
#undef NUMBER
#undef WORDS
#undef NONE

static qgc_status refuse(const qgc_binding *b, const char *key) {
    const char *shown = qgc_weights_shown(b->w, key, b->d->arena);
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                            "\"%s\" states \"%s\" as %.120s, which this model does not compute", b->path, key,
                            shown ? shown : "null");
    qgc_hint(
        b->d,
        "Without it the text would be wrong. Take weights of a model that the graph describes, or, if it computes just "
        "that, name the key for one of its parameters.");
    return s;
}

/* "qwen2.rope.scaling.type" */
static const char *key_of(const qgc_binding *b, const char *key) {
    return b->is_gguf ? qgc_arena_printf(b->d->arena, "%s.%s", qgc_weights_arch(b->w), key) : key;
}

/* Does a parameter of the graph stand for this key, or is a weight made of it? Then it has been compared. */
static bool is_used(const qgc_binding *b, const char *key) {
    for (size_t i = 0; i < b->request->n_params; i++) {
        const qgc_param_want *p = &b->request->params[i];
        const char *const *keys = b->is_gguf ? p->gguf : p->hf;
        for (int k = 0; k < (b->is_gguf ? p->n_gguf : p->n_hf); k++)
            if (strcmp(qgc_weights_key(b->w, keys[k], b->d->arena), key) == 0)
                return true;
    }
    for (size_t i = 0; i < b->request->n_weights && !b->is_gguf; i++)
        if (b->request->weights[i].hf && qgc_form_names_key(b->request->weights[i].hf, key))
            return true;
    return false;
}

static const qgc_param_want *param(const qgc_binding *b, const char *name) {
    for (size_t i = 0; i < b->request->n_params; i++)
        if (strcmp(b->request->params[i].name, name) == 0)
            return &b->request->params[i];
    return NULL;
}

static bool states(const qgc_binding *b, const char *key) {
    return qgc_weights_shown(b->w, key, b->d->arena) != NULL;
}

static qgc_status check_fact(const qgc_binding *b, const fact *f) {
    const char *key = key_of(b, f->key);
    double number;
    if (!states(b, key) || is_used(b, key))
        return QGC_OK;
    if (f->words && qgc_has_word(f->words, qgc_weights_string(b->w, key)))
        return QGC_OK;
    if (!f->words && qgc_weights_number(b->w, key, &number) && number == f->number)
        return QGC_OK;
    if (strcmp(qgc_weights_shown(b->w, key, b->d->arena), "[]") == 0)
        return QGC_OK;
    return refuse(b, key);
}

/* --- windows --------------------------------------------------------------------------------------------- */

/* Has the graph no layer with a window? */
static bool no_layer_is_windowed(const qgc_binding *b) {
    const qgc_param_want *windowed = param(b, "windowed");
    for (int i = 0; windowed && i < windowed->turns; i++)
        if (windowed->values[i] != 0)
            return false;
    return windowed && windowed->turns > 0;
}

/* A window that holds as many positions as the model can have is none. */
static bool window_is_none(const qgc_binding *b, const char *key) {
    const qgc_param_want *most = param(b, "max_positions");
    double window;
    return qgc_weights_number(b->w, key, &window) &&
           (window == 0 || (most && window >= most->value) || no_layer_is_windowed(b));
}

/* Of these families a window counts only where use_sliding_window says so, and that is false if it is missing. */
static bool window_is_asked_for(const qgc_binding *b) {
    double used;
    if (b->is_gguf || qgc_weights_number(b->w, "use_sliding_window", &used))
        return b->is_gguf || used != 0;
    const char *arch = qgc_weights_arch(b->w);
    return strncmp(arch, "qwen2", 5) != 0 && strncmp(arch, "qwen3", 5) != 0;
}

static bool is_zero(const qgc_binding *b, const char *key) {
    double number;
    return qgc_weights_number(b->w, key, &number) && number == 0;
}

static qgc_status check_windows(const qgc_binding *b) {
    const char *key = b->is_gguf ? key_of(b, "attention.sliding_window") : "sliding_window";
    if (is_used(b, key)) /* 0 then hides all positions, or none, as the family has it */
        return is_zero(b, key) && window_is_asked_for(b) ? refuse(b, key) : QGC_OK;
    return !states(b, key) || window_is_none(b, key) || !window_is_asked_for(b) ? QGC_OK : refuse(b, key);
}

static const char types_key[] = "layer_types";

static bool is_type(const qgc_binding *b, size_t layer, const char *word) {
    const char *text;
    size_t bytes;
    return qgc_weights_array_string(b->w, types_key, layer, &text, &bytes) && bytes == strlen(word) &&
           memcmp(text, word, bytes) == 0;
}

/* Attention of a kind that is not written here, in some layers; or a window that another key says not to use. */
static qgc_status check_layer_types(const qgc_binding *b) {
    const size_t n = b->is_gguf ? 0 : qgc_weights_array_length(b->w, types_key);
    if (b->is_gguf || !states(b, types_key))
        return QGC_OK;
    const bool used = is_used(b, types_key), asked = window_is_asked_for(b);
    const bool no_window = !states(b, "sliding_window") || window_is_none(b, "sliding_window");
    for (size_t i = 0; i < n; i++) {
        const bool windowed = is_type(b, i, "sliding_attention"), full = is_type(b, i, "full_attention");
        if (used ? windowed && !asked : !full && !(windowed && no_window))
            return refuse(b, types_key);
    }
    return n > 0 || used ? QGC_OK : refuse(b, types_key);
}

/* A cap of 0 would divide by it; that there is none is stated otherwise. */
static qgc_status check_caps(const qgc_binding *b) {
    static const char *const keys[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    for (int i = 0; i < 2; i++)
        if (is_used(b, key_of(b, keys[i])) && is_zero(b, key_of(b, keys[i])))
            return refuse(b, key_of(b, keys[i]));
    return QGC_OK;
}

/* These take the activation that they have by themselves where hidden_activation is missing, whatever hidden_act says. */
static qgc_status check_activation(const qgc_binding *b) {
    static const char key[] = "hidden_act";
    if (b->is_gguf || !states(b, key) || states(b, "hidden_activation") ||
        !qgc_has_word(" gemma2 gemma3_text ", qgc_weights_arch(b->w)))
        return QGC_OK;
    return qgc_has_word(" gelu_pytorch_tanh gelu_new ", qgc_weights_string(b->w, key)) ? QGC_OK
                                                                                       : refuse(b, key);
}

/* --- rotation -------------------------------------------------------------------------------------------- */

/* A key inside of an object that says how to rotate: used by the graph, or of no meaning. */
static qgc_status check_rotation_key(const qgc_binding *b, const char *key, const char *name,
                                     bool is_default) {
    static const char *const ones[] = {"factor", "attention_factor", "partial_rotary_factor"};
    double number;
    if (strcmp(name, "truncate") == 0 && qgc_weights_is_null(b->w, key))
        return refuse(b, key); /* which transformers takes for false, and a missing one for true */
    if (!states(b, key) || is_used(b, key))
        return QGC_OK;
    if (strcmp(name, "rope_theta") == 0) /* alone it may stand for the one outside, which is compared */
        return refuse(b, key);
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++)
        if (strcmp(ones[i], name) == 0 && qgc_weights_number(b->w, key, &number) && number == 1)
            return QGC_OK;
    return is_default && strcmp(name, "partial_rotary_factor") != 0 ? QGC_OK : refuse(b, key);
}

/* A kind of scaling states its numbers: those that it would have without are not those of the model. */
static qgc_status check_numbers(const qgc_binding *b, const char *object, const char *word,
                                const char *kind) {
    static const struct {
        const char *words, *key, *outside; /* a key of the file that stands in for it, or NULL */
    } wanted[] = {{" linear yarn llama3 ", "factor", NULL},
                  {" longrope su ", "factor", "max_position_embeddings"},
                  {" llama3 ", "low_freq_factor", NULL},
                  {" llama3 ", "high_freq_factor", NULL}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const char *key = qgc_arena_printf(b->d->arena, "%s.%s", object, wanted[i].key);
        if (!qgc_has_word(wanted[i].words, word) || states(b, key) ||
            (wanted[i].outside && states(b, wanted[i].outside)))
            continue;
        qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                                "\"%s\" states \"%s\" as \"%s\", but not \"%s\"", b->path, kind, word, key);
        qgc_hint(b->d, "Write the number that the model was trained with into the config.json.");
        return s;
    }
    return QGC_OK;
}

/* The kind that an object names, under the newer key or the older one, or both. */
static qgc_status check_kind(const qgc_binding *b, const char *object, bool *is_default) {
    static const char *const kinds[] = {"rope_type", "type"};
    *is_default = false;
    for (int i = 0; i < 2; i++) {
        const char *kind = qgc_arena_printf(b->d->arena, "%s.%s", object, kinds[i]);
        if (!states(b, kind))
            continue;
        const char *word = qgc_weights_string(b->w, kind);
        const bool plain = word && strcmp(word, "default") == 0;
        if (!plain && !is_used(b, kind))
            return refuse(b, kind);
        QGC_TRY(check_numbers(b, object, word, kind));
        *is_default = plain;
    }
    return QGC_OK;
}

/* Rotation of some layers only: the graph uses all that it says. */
static qgc_status check_layers(const qgc_binding *b, const char *object) {
    const char *name;
    bool is_default, any = false;
    QGC_TRY(check_kind(b, object, &is_default));
    for (size_t i = 0; (name = qgc_weights_member(b->w, object, i)); i++) {
        const char *key = qgc_arena_printf(b->d->arena, "%s.%s", object, name);
        const bool is_kind = strcmp(name, "rope_type") == 0 || strcmp(name, "type") == 0;
        any = any || is_used(b, key);
        if (states(b, key) && !is_used(b, key) && !(is_kind && is_default))
            return refuse(b, key);
    }
    return any ? QGC_OK : refuse(b, object);
}

/* The configuration of Phi-3 has a number by itself that goes before the one inside of the object. */
static qgc_status check_original(const qgc_binding *b, const char *object) {
    static const char name[] = "original_max_position_embeddings";
    const char *key = qgc_arena_printf(b->d->arena, "%s.%s", object, name);
    double number;
    if (strcmp(qgc_weights_arch(b->w), "phi3") != 0 || states(b, name) ||
        !qgc_weights_number(b->w, key, &number) || number == 4096)
        return QGC_OK;
    return refuse(b, key);
}

/* rope_scaling is the older name of the object. A file may have both, or one for each kind of layer inside. Where it names a
 * kind of scaling, every other key in it counts. */
static qgc_status check_scaling(const qgc_binding *b, const char *object) {
    static const char *const layers[] = {"full_attention", "sliding_attention"};
    qgc_arena *a = b->d->arena;
    bool is_default;
    QGC_TRY(check_kind(b, object, &is_default));
    QGC_TRY(check_original(b, object));
    const char *name = qgc_weights_member(b->w, object, 0);
    if (!name && states(b, object) && strcmp(qgc_weights_shown(b->w, object, a), "{}") != 0)
        return refuse(b, object);
    for (size_t i = 0; (name = qgc_weights_member(b->w, object, i)); i++) {
        const char *key = qgc_arena_printf(a, "%s.%s", object, name);
        const bool nested = strcmp(name, layers[0]) == 0 || strcmp(name, layers[1]) == 0;
        if (strcmp(name, "rope_type") == 0 || strcmp(name, "type") == 0)
            continue;
        QGC_TRY(nested && states(b, key) ? check_layers(b, key)
                                         : check_rotation_key(b, key, name, is_default));
    }
    return QGC_OK;
}

/* A config.json states the size of a head where it is not that of the model divided by heads. */
static qgc_status check_head(const qgc_binding *b) {
    static const char key[] = "head_dim";
    const qgc_param_want *head = param(b, "d_head");
    double stated;
    if (!head || is_used(b, key) || !qgc_weights_number(b->w, key, &stated) || stated == head->value)
        return QGC_OK;
    return refuse(b, key);
}

static bool rows_are_put_back(const qgc_binding *b) {
    for (size_t i = 0; i < b->request->n_weights; i++)
        if (b->request->weights[i].gguf_form.heads > 0)
            return true;
    return false;
}

/* How many elements of a head a GGUF says are turned: all, or it is another model. Where rows of q and k are put back into the order of
 * halves, neighbours of which only the first are turned would lie far apart, and not where a rotation of a part takes its pairs. */
static qgc_status check_turned(const qgc_binding *b) {
    const char *turned = key_of(b, "rope.dimension_count"), *keys = key_of(b, "attention.key_length"),
               *values = key_of(b, "attention.value_length");
    const qgc_param_want *head = param(b, "d_head");
    double count, width, heads, length;
    if (qgc_weights_number(b->w, keys, &length) && qgc_weights_number(b->w, values, &width) &&
        length != width)
        return refuse(b, values);
    const bool known = qgc_weights_number(b->w, keys, &length);
    if (known && head && length != head->value && !is_used(b, keys))
        return refuse(b, keys);
    if (!known && qgc_weights_number(b->w, key_of(b, "embedding_length"), &width) &&
        qgc_weights_number(b->w, key_of(b, "attention.head_count"), &heads) && heads > 0)
        length = head ? head->value : width / heads;
    else if (!known)
        return QGC_OK;
    if (qgc_weights_number(b->w, turned, &count) && count != length &&
        (!is_used(b, turned) || rows_are_put_back(b)))
        return refuse(b, turned);
    return QGC_OK;
}

/* The converter puts the rows of q and k of these into another order, for a rotation of neighbours; the only one here is
 * that of halves. */
static qgc_status check_order_of_rows(const qgc_binding *b) {
    static const char permuted[] =
        " llama mistral3 granite smollm3 deepseek2 olmo command-r ernie4_5 chatglm ";
    double in_order; /* in a GGUF that was written here */
    if (rows_are_put_back(b))
        return QGC_OK;
    if (!qgc_has_word(permuted, qgc_weights_arch(b->w)) ||
        (qgc_weights_number(b->w, "qgc.rows_in_order", &in_order) && in_order == 1))
        return QGC_OK;
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                 "\"%s\" is a GGUF of architecture \"%s\", in which the rows of q and k stand in another "
                 "order than this model reads them",
                 b->path, qgc_weights_arch(b->w));
    qgc_hint(b->d, "Take the safetensors of the same model.");
    return s;
}

static qgc_status no_divisors(const qgc_binding *b, const char *type, const char *name) {
    qgc_status s =
        qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                 "\"%s\" states \"%s\" as \"longrope\", but has no tensor \"%s\"", b->path, type, name);
    qgc_hint(b->d, "The converter left it out. Take the safetensors of the same model.");
    return s;
}

/* Divisors of the frequencies: tensors, and often the only word that a file says of its scaling. */
static qgc_status check_divisors(const qgc_binding *b) {
    static const char *const names[] = {"rope_factors_long.weight", "rope_factors_short.weight",
                                        "rope_freqs.weight"};
    const char *type = key_of(b, "rope.scaling.type");
    if (qgc_has_word(" longrope su ", qgc_weights_string(b->w, type)))
        for (int i = 0; i < 2; i++)
            if (!qgc_weights_find(b->w, names[i]))
                return no_divisors(b, type, names[i]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const qgc_tensor *t = qgc_weights_find(b->w, names[i]);
        for (size_t k = 0; k < b->request->n_weights && t; k++)
            t = strcmp(b->found[k]->name, names[i]) == 0 ? NULL : t;
        if (t)
            return qgc_fail(
                b->d, QGC_ERR_INPUT, b->request->at,
                "\"%s\" has tensor \"%s\", a scaling of the rotation that this model does not compute",
                b->path, names[i]);
    }
    return QGC_OK;
}

/* --- what has to be there -------------------------------------------------------------------------------- */

static qgc_status not_stated(const qgc_binding *b, const char *key) {
    qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, b->request->at,
                            "\"%s\" does not state \"%s\", which such a file has to", b->path, key);
    qgc_hint(b->d, "The file was not written whole, or not by a converter of this architecture.");
    return s;
}

/* A GGUF states the epsilon of its norms, or nobody knows it: there is no number that such files mean without. */
static qgc_status check_epsilon(const qgc_binding *b) {
    static const char *const keys[] = {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"};
    for (int i = 0; i < 2; i++) {
        const char *key = key_of(b, keys[i]), *other = key_of(b, keys[!i]);
        if (is_used(b, key) && !states(b, key) && !(is_used(b, other) && states(b, other)))
            return not_stated(b, key);
    }
    return QGC_OK;
}

/* What a GGUF that scales its rotation, or turns a part of a head, or is of GPT-NeoX has to state as well. */
static qgc_status check_stated(const qgc_binding *b) {
    const char *factor = key_of(b, "rope.scaling.factor"), *turned = key_of(b, "rope.dimension_count"),
               *parallel = key_of(b, "use_parallel_residual");
    const qgc_param_want *part = param(b, "rotary_dim"), *head = param(b, "d_head");
    if (qgc_has_word(" linear yarn ", qgc_weights_string(b->w, key_of(b, "rope.scaling.type"))) &&
        !states(b, factor))
        return not_stated(b, factor);
    if (part && head && part->value != head->value && !states(b, turned))
        return not_stated(b, turned);
    if (strcmp(qgc_weights_arch(b->w), "gptneox") == 0 && !states(b, parallel))
        return not_stated(b, parallel);
    return QGC_OK;
}

/* --- ties ------------------------------------------------------------------------------------------------ */

/* Does the file say that the head is a tensor of its own? Of these families it is one where the key is missing. */
static bool head_is_apart(const qgc_binding *b) {
    static const char families[] = " llama mistral qwen2 qwen3 olmo2 olmo3 granite phi3 qwen3_moe qwen2_moe "
                                   "mixtral olmoe stablelm phi gpt_neox ";
    double tied;
    if (!b->is_gguf && qgc_weights_number(b->w, "tie_word_embeddings", &tied))
        return tied == 0;
    return !b->is_gguf && qgc_has_word(families, qgc_weights_arch(b->w));
}

/* A head that the file says it has, and has not. */
static qgc_status check_ties(const qgc_binding *b) {
    static const char key[] = "tie_word_embeddings";
    if (!head_is_apart(b))
        return QGC_OK;
    for (size_t i = 0; i < b->request->n_weights; i++) {
        const qgc_weight_want *want = &b->request->weights[i];
        if (want->tied < 0 || !want->hf || qgc_weights_find(b->w, qgc_form_name(b, want, 0)))
            continue;
        qgc_status s = qgc_fail(b->d, QGC_ERR_INPUT, want->at,
                                "\"%s\" %s, but has no tensor \"%s\" for weight \"%s\"", b->path,
                                states(b, key) ? "states \"tie_word_embeddings\" as false"
                                               : "does not state \"tie_word_embeddings\", which means false",
                                want->hf, want->label);
        qgc_hint(b->d, "Is a file missing?");
        return s;
    }
    return QGC_OK;
}

qgc_status qgc_facts_check(const qgc_binding *b) {
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        if ((facts[i].format == FORMAT_GGUF) == b->is_gguf)
            QGC_TRY(check_fact(b, &facts[i]));
    QGC_TRY(check_windows(b));
    QGC_TRY(check_layer_types(b));
    QGC_TRY(check_caps(b));
    QGC_TRY(check_activation(b));
    QGC_TRY(check_ties(b));
    if (!b->is_gguf) {
        QGC_TRY(check_head(b));
        QGC_TRY(check_scaling(b, "rope_scaling"));
        return check_scaling(b, "rope_parameters");
    }
    QGC_TRY(check_epsilon(b));
    QGC_TRY(check_stated(b));
    QGC_TRY(check_order_of_rows(b));
    QGC_TRY(check_turned(b));
    return check_divisors(b);
}
