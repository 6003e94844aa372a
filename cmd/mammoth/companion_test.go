package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/spf13/pflag"

	"github.com/mammoth-os/mammoth/internal/manifest"
)

// A framework's manifest takes what the companion's own file takes, less what its node says.
func TestAFrameworkHasTheSettingsOfItsCompanion(t *testing.T) {
	said := []string{"config", "help", "resourcemanager", "dir", "name", "stop-nginx", "stop-haproxy"}
	c := &companionCommands{env: func(string) string { return "" }}
	flags := map[string][]string{}
	for _, command := range c.companionCommand().Commands() {
		var settings []string
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			if !slices.Contains(said, flag.Name) {
				settings = append(settings, camelCase(flag.Name))
			}
		})
		slices.Sort(settings)
		flags[command.Name()] = settings
	}
	if known := manifest.Companions(); !maps.EqualFunc(flags, known, slices.Equal[[]string]) {
		t.Errorf("companions have the settings %v, a manifest knows %v", flags, known)
	}
}

func TestACompanionIsToldByItsContainerWhereItIs(t *testing.T) {
	env := map[string]string{"MAMMOTH_STATE": "/var/lib/mammoth/frameworks/edge", "MAMMOTH_NODE": "node-1", "MAMMOTH_RESOURCEMANAGER": "10.0.0.1:7070"}
	c := &companionCommands{env: func(name string) string { return env[name] }}
	for name, want := range map[string]string{"name": "edge.node-1", "dir": "/var/lib/mammoth/frameworks/edge", "resourcemanager": "10.0.0.1:7070"} {
		if got := c.nginxCommand().Flag(name).DefValue; got != want {
			t.Errorf("--%s is %q by default, want %q", name, got, want)
		}
	}
}
