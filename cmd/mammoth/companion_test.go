package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/spf13/pflag"
)

// A companion app's manifest takes what the companion's own file takes, less what its node says.
func TestACompanionAppHasTheSettingsOfItsCompanion(t *testing.T) {
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
	if known := settingsInManifests(t); !maps.EqualFunc(flags, known, slices.Equal[[]string]) {
		t.Errorf("companions have the settings %v, a manifest knows %v", flags, known)
	}
}

// settingsInManifests are the settings of each companion in the source of the package that reads manifests.
func settingsInManifests(t *testing.T) map[string][]string {
	t.Helper()
	source, err := parser.ParseFile(token.NewFileSet(), "../../internal/manifest/companion.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string][]string{}
	ast.Inspect(source, func(node ast.Node) bool {
		value, ok := node.(*ast.ValueSpec)
		if !ok || value.Names[0].Name != "companions" {
			return true
		}
		for companion, settings := range keysOf(value.Values[0]) {
			for name := range keysOf(settings) {
				known[companion] = append(known[companion], name)
			}
			slices.Sort(known[companion])
		}
		return false
	})
	return known
}

// keysOf are the values in the source of a map by their keys.
func keysOf(literal ast.Expr) map[string]ast.Expr {
	values := map[string]ast.Expr{}
	for _, element := range literal.(*ast.CompositeLit).Elts {
		pair := element.(*ast.KeyValueExpr)
		name, _ := strconv.Unquote(pair.Key.(*ast.BasicLit).Value)
		values[name] = pair.Value
	}
	return values
}

func TestACompanionIsToldByItsContainerWhereItIs(t *testing.T) {
	env := map[string]string{"MAMMOTH_STATE": "/var/lib/mammoth/companions/edge", "MAMMOTH_NODE": "node-1", "MAMMOTH_RESOURCEMANAGER": "10.0.0.1:7070"}
	c := &companionCommands{env: func(name string) string { return env[name] }}
	for name, want := range map[string]string{"name": "edge.node-1", "dir": "/var/lib/mammoth/companions/edge", "resourcemanager": "10.0.0.1:7070"} {
		if got := c.nginxCommand().Flag(name).DefValue; got != want {
			t.Errorf("--%s is %q by default, want %q", name, got, want)
		}
	}
}
