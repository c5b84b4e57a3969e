// The executables that the GPU command runs beside the addon.
export const programs = ["attune-check", "attune-probes", "attune-rows", "attune-large"];
