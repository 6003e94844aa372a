// Package trackerv1 is the protocol between NodeManagers and the ResourceManager; tracker.proto says who calls whom.
package trackerv1
