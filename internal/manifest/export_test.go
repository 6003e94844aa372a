package manifest

// Companions are the settings of each companion that a framework can run.
var Companions = companions
