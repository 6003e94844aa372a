// Package corev1 has the messages that several protocols share; core.proto says which.
package corev1
