package manifest

import (
	"slices"

	"go.yaml.in/yaml/v3"
)

// kind is a kind of file. It is recognised by a key that no other kind has.
type kind struct {
	marks []string
	is    string
}

var (
	appFile       = kind{[]string{"image", "roles", "companion", "command", "framework"}, "the manifest of an app: `mammoth deploy -f FILE` takes it"}
	queueFile     = kind{[]string{"queues"}, "a queue file: `mammoth queue set -f FILE` takes it"}
	lendingFile   = kind{[]string{"lending"}, "a lending file: `mammoth lend add -f FILE` takes it"}
	frameworkFile = kind{[]string{"master"}, "a framework package: `mammoth framework install FILE` takes it"}
	kinds         = []kind{
		{[]string{"apiVersion"}, "an object of Kubernetes: describe the app in a manifest of Mammoth instead"},
		{[]string{"services"}, "a Compose file: describe each of its services in a manifest of Mammoth instead"},
		queueFile, lendingFile, frameworkFile, appFile,
	}
)

// refuseOther reports a file of another kind than the wanted one as one mistake, instead of one for each key.
func refuseOther(d *decoder, root *yaml.Node, wanted kind) bool {
	if wanted.marked(root) {
		return false
	}
	for _, kind := range kinds {
		if kind.marked(root) {
			d.fail(root, "the file is %s", kind.is)
			return true
		}
	}
	return false
}

func (k kind) marked(root *yaml.Node) bool {
	if root.Kind != yaml.MappingNode {
		return false
	}
	switch brought := bringsCompanion(root); {
	case brought && k.is == frameworkFile.is:
		return true
	case brought && k.is == appFile.is:
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		// A text where a list is expected is a slip, as in "queues: batch".
		slip := slices.Contains([]string{"queues", "lending", "services"}, root.Content[i].Value) && root.Content[i+1].Kind == yaml.ScalarNode
		if slices.Contains(k.marks, root.Content[i].Value) && !slip {
			return true
		}
	}
	return false
}

// bringsCompanion reports whether a file says how a companion is started, as a framework package does. An app names one, with its
// settings, and is of a kind.
func bringsCompanion(root *yaml.Node) bool {
	brings := false
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch key, value := root.Content[i].Value, root.Content[i+1]; {
		case key == "kind":
			return false
		case key == "companion" && value.Kind == yaml.MappingNode:
			for j := 0; j+1 < len(value.Content); j += 2 {
				settings := value.Content[j+1].Kind == yaml.MappingNode
				brings = brings || !settings && slices.Contains([]string{"command", "image", "args"}, value.Content[j].Value)
			}
		}
	}
	return brings
}
