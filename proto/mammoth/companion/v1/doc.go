// Package companionv1 is the protocol between companions and the ResourceManager; companion.proto says who calls whom.
package companionv1
