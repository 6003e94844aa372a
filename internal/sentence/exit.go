package sentence

import (
	"fmt"
	"strings"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Exit says how a container ended, in the words that people search for: "OOMKilled: it reached its memory quota of 64MiB".
func Exit(exit *corev1.Exit) string {
	words := exitWords(exit)
	switch {
	case strings.HasPrefix(exit.GetMessage(), words):
		return exit.GetMessage()
	case exit.GetMessage() == "":
		return words
	}
	return words + ": " + exit.GetMessage()
}

func exitWords(exit *corev1.Exit) string {
	switch exit.GetReason() {
	case corev1.Exit_EXITED:
		return fmt.Sprintf("exited with code %d", exit.GetCode())
	case corev1.Exit_OOM_KILLED:
		return "OOMKilled"
	case corev1.Exit_DISK_QUOTA_EXCEEDED:
		return "disk quota exceeded"
	case corev1.Exit_STOPPED:
		return "it was stopped"
	case corev1.Exit_PREEMPTED:
		return "it was preempted"
	case corev1.Exit_LAUNCH_FAILED:
		return "it could not be launched"
	case corev1.Exit_UNHEALTHY:
		return "its health check failed"
	case corev1.Exit_NODE_LOST:
		return "its node was lost"
	case corev1.Exit_LEASE_ENDED:
		return "its lease had ended"
	case corev1.Exit_VANISHED:
		return "it ended unobserved"
	case corev1.Exit_NODE_FAILED:
		return "its node could not run it"
	case corev1.Exit_KILLED_FROM_OUTSIDE:
		return "it was killed from outside Mammoth"
	}
	return fmt.Sprintf("ended with code %d", exit.GetCode())
}
