#include "runtime/lab/judge_impl.h"

/* Which value of a graph is in the place of which of the graph before it. */

static bool pair(judge_known *now, const qgc_value *v, const qgc_value *before) {
    if (now->place[v->id] || v->dtype != before->dtype || !qgc_shape_equal(&v->shape, &before->shape))
        return false;
    now->place[v->id] = now->shown.twin[v->id] = before;
    return true;
}

/* Outputs by name, and states. */
void judge_pair_ends(judge_known *now, const judge_known *before) {
    const qgc_graph *g = now->shown.graph;
    for (size_t i = 0; i < g->n_outputs; i++) {
        const qgc_value *other = qgc_graph_output(before->shown.graph, g->outputs[i]->name);
        if (other)
            pair(now, g->outputs[i], other);
    }
    for (size_t i = 0; i < g->n_values; i++)
        for (size_t k = 0; now->newest[i] && k < before->shown.graph->n_values; k++)
            if (before->newest[k] && now->class_of[i] == before->class_of[k])
                pair(now, now->newest[i], before->newest[k]);
}

/* Two states of one graph: a node that both have makes what it made, and where it reads something else now,
 * that is in the place of what it read. */
void judge_pair_by_ids(judge_known *now, const judge_known *before) {
    const int known_ids = before->shown.graph->next_node_id;
    for (const qgc_node *n = now->shown.graph->first; n; n = n->next) {
        const qgc_node *old = n->id < known_ids ? before->nodes[n->id] : NULL;
        if (!old)
            continue;
        for (int i = 0; i < n->n_out; i++)
            pair(now, n->out[i], old->out[i]);
        for (int i = 0; i < n->n_in && i < old->n_in; i++) {
            const bool is_old =
                n->in[i]->maker && n->in[i]->maker->id < known_ids && before->nodes[n->in[i]->maker->id];
            if (n->in[i]->kind == QGC_RESULT && old->in[i]->kind == QGC_RESULT && !is_old)
                pair(now, n->in[i], old->in[i]);
        }
    }
}

/* Two graphs: from pairs towards their inputs, as long as the ops are the same. From the last node to the
 * first, so that the readers of a value come before it. */
void judge_pair_backwards(judge_known *now) {
    for (const qgc_node *n = now->shown.graph->last; n; n = n->prev) {
        const qgc_value *twin = now->place[n->out[0]->id];
        const qgc_node *old = twin ? twin->maker : NULL;
        if (!old || old->op != n->op || old->n_in != n->n_in)
            continue;
        for (int i = 0; i < n->n_in; i++)
            if (n->in[i]->kind == QGC_RESULT && old->in[i]->kind == QGC_RESULT)
                pair(now, n->in[i], old->in[i]);
    }
}

/* Values that are known get a twin of their class, where what stands in their place is of another. */
void judge_match_known(judge_known *now, const judge_known *before, size_t n_classes) {
    const qgc_value **of_class = qgc_arena_array(now->shown.arena, n_classes, sizeof(qgc_value *));
    for (size_t i = 0; i < before->shown.graph->n_values; i++)
        if (before->class_of[i] >= 0)
            of_class[before->class_of[i]] = before->shown.graph->values[i];
    for (size_t i = 0; i < now->shown.graph->n_values; i++) {
        const int class = now->class_of[i];
        const qgc_value **twin = &now->shown.twin[i];
        if (class >= 0 && !now->is_new[i] && (!*twin || before->class_of[(*twin)->id] != class))
            *twin = of_class[class];
    }
}
