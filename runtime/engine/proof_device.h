#ifndef QGC_ENGINE_PROOF_DEVICE_H
#define QGC_ENGINE_PROOF_DEVICE_H

#include "codegen/proof.h"
#include "runtime/device.h"

/* Runs the kernels from outside that a plan has on the device, in the images for `arch` ("sm_90a"), before anything else does: on
 * random operands, against the evaluator (codegen/proof.h), twice, and where they wait for the launch before them, also after one that
 * brings their operands late. What was proved is kept in the cache folder, by image and device. An error, with status QGC_ERR_INPUT,
 * names the first that does not compute what its row says. Nothing is done for a plan without such kernels. */
QGC_MUST_USE qgc_status qgc_prove_on_device(const qgc_plan *plan, qgc_device *dev, const char *arch,
                                            const qgc_prove_options *o, qgc_diag *d);

#endif
