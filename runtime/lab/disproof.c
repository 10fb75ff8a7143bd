#include "runtime/lab/disproof.h"

#include "codegen/proof.h"

const char *qgc_lab_disproof(const qgc_graph *g, const char *cache_folder, bool asks_devices,
                             const qgc_node **at, qgc_arena *a) {
    qgc_diag d = qgc_diag_new(a);
    qgc_proof *proofs;
    int n;
    if (qgc_proofs_list(g, &proofs, &n, a, &d) != QGC_OK)
        return qgc_diag_message(&d);
    if (qgc_prove(proofs, n, &(qgc_prove_options){.cache_folder = cache_folder}, &d) != QGC_OK)
        return NULL; /* no room on the disk, say: that a kernel is wrong is not known */
    for (int i = 0; i < n; i++) {
        const char *fault = proofs[i].result == QGC_DISPROVED || !asks_devices
                                ? NULL
                                : qgc_proof_get_fault(&proofs[i], cache_folder, a);
        if (fault) {
            proofs[i].result = QGC_DISPROVED;
            proofs[i].why = fault;
        }
        if (proofs[i].result == QGC_DISPROVED) {
            *at = proofs[i].first;
            return qgc_proof_text(&proofs[i], a);
        }
    }
    return NULL;
}
