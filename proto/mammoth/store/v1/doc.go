// Package storev1 has the records that a ResourceManager stores; records.proto says who writes and reads them.
package storev1
