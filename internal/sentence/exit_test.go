package sentence

import (
	"testing"

	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestAnExitIsSaidOnce(t *testing.T) {
	for want, exit := range map[string]*corev1.Exit{
		"exited with code 3":                            {Reason: corev1.Exit_EXITED, Code: 3, Message: "exited with code 3"},
		"exited with code 137: was killed by signal 9":  {Reason: corev1.Exit_EXITED, Code: 137, Message: "was killed by signal 9"},
		"OOMKilled: it reached its memory quota":        {Reason: corev1.Exit_OOM_KILLED, Message: "OOMKilled: it reached its memory quota"},
		"disk quota exceeded (72MiB of 64MiB)":          {Reason: corev1.Exit_DISK_QUOTA_EXCEEDED, Message: "disk quota exceeded (72MiB of 64MiB)"},
		"it was stopped":                                {Reason: corev1.Exit_STOPPED, Message: "it was stopped"},
		"its node was lost":                             {Reason: corev1.Exit_NODE_LOST},
		"it was preempted: apps has its guarantee back": {Reason: corev1.Exit_PREEMPTED, Message: "apps has its guarantee back"},
	} {
		if got := Exit(exit); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	ways := map[string]int32{}
	for reason := range corev1.Exit_Reason_name {
		words := Exit(&corev1.Exit{Reason: corev1.Exit_Reason(reason), Code: 1})
		if other, known := ways[words]; known || words == "" {
			t.Errorf("%v and %v are both %q", corev1.Exit_Reason(reason), corev1.Exit_Reason(other), words)
		}
		ways[words] = reason
	}
}
