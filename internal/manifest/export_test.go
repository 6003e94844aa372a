package manifest

// Companions are the settings of each companion that a companion app can run.
var Companions = companions
