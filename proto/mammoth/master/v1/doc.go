// Package masterv1 is the protocol between application masters and the ResourceManager; master.proto says who calls whom.
package masterv1
