package zone

import (
	"go/ast"
	"go/types"
	"slices"
	"testing"

	"github.com/mammoth-os/mammoth/internal/bordertest"
)

// part says what belongs to a part of the zone; see bordertest.Part.
type part struct {
	types, files []string
	writes       string
}

var parts = []part{
	{[]string{"damage", "loss"}, []string{"damage.go"}, "node.unknown"},
	{[]string{"units"}, []string{"units.go"}, ""},
	{[]string{"scheduling"}, []string{"scheduling.go"}, ""},
	{[]string{"apps"}, []string{"apps.go", "claims.go"}, "app.removed app.queueLost app.record.State app.record.Reason"},
	{[]string{"packages"}, []string{"packages.go"}, ""},
	{
		[]string{"desired", "appCounts"},
		[]string{"desired.go", "counts.go"},
		"app.counts app.record.Generation app.record.EndBy app.record.RestartBefore app.record.CountedAt " +
			"app.record.Outcome",
	},
	{
		[]string{"versions", "appStatus", "heldStatus"},
		[]string{"versions.go", "status.go"},
		"app.record.Spec app.record.Version app.record.Versions app.record.Revised app.record.Status " +
			"app.record.FromVersion",
	},
	{
		[]string{"attempts", "appAttempt"},
		[]string{"attempts.go", "external.go"},
		"app.record.Attempt app.record.EarlierAttempts app.record.Failures app.record.AvoidNodes app.record.RetryAt",
	},
	{[]string{"asks", "appAsks"}, []string{"asks.go"}, ""},
	{
		[]string{"masters", "appMaster"},
		[]string{"masters.go", "instances.go", "release.go"},
		"app.instances app.record.ObservedGeneration",
	},
	{[]string{"commands", "openCommand"}, []string{"commands.go"}, ""},
	{[]string{"endpoints", "appEndpoints", "publication"}, []string{"endpoints.go", "traffic.go"}, ""},
	{[]string{"balancers"}, []string{"balancers.go"}, ""},
	{
		[]string{"nodes"},
		[]string{"nodes.go", "nodeview.go", "reports.go", "drain.go"},
		"node.inScheduler node.record.State node.record.Reason node.record.Health node.record.Attributes node.record.Drain " +
			"node.record.DrainReason node.record.Address node.record.ContainerManager node.record.Version node.record.Capacity " +
			"node.record.RegisteredAt node.record.FolderId",
	},
	{[]string{"sessions", "nodeSession"}, []string{"sessions.go", "twins.go"}, ""},
	{[]string{"frameworks"}, []string{"frameworks.go"}, "node.frameworks"},
	{
		[]string{"leases", "appLeases"},
		[]string{"leases.go", "grants.go", "targets.go"},
		"app.containers node.containers container.notice container.record.Status container.record.DoneAt " +
			"container.record.Stopping container.record.StopReason container.record.StopMessage container.record.Acknowledged " +
			"container.record.Group container.record.Duration container.record.Service",
	},
	{[]string{"keys"}, []string{"keys.go"}, ""},
	{
		[]string{"views", "appView", "nodeView", "instanceView", "instanceFacts", "pace", "late", "quotaViews"},
		[]string{"views.go", "shown.go", "appview.go", "instanceview.go"},
		"",
	},
	{[]string{"waits", "appWait"}, []string{"waits.go"}, "app.record.Waiting"},
	{[]string{"explainer"}, []string{"explainer.go", "explain.go", "plan.go", "instancereason.go"}, ""},
}

func borders() []bordertest.Part {
	var list []bordertest.Part
	for _, p := range parts {
		list = append(list, bordertest.Part{Types: p.types, Files: p.files, Writes: p.writes})
	}
	return list
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) {
	bordertest.Read(t, ".").Selections(t, borders())
}

// What all parts read of an app, a node and a container, one part alone changes.
func TestEachFieldOfARecordIsChangedByOnePart(t *testing.T) {
	bordertest.Read(t, ".").Changes(t, borders(), "app", "node", "container")
}

// A type with more methods or fields is several things.
func TestNoTypeIsSeveralThings(t *testing.T) { bordertest.Read(t, ".").Sizes(t, nil) }

// What people look at between turns, and what is explained to them, adds nothing to the turn.
func TestReadingChangesNothing(t *testing.T) {
	source := bordertest.Read(t, ".")
	calls := map[types.Object][]types.Object{}
	var reading []types.Object
	for name, file := range source.Files {
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			of := source.Info.Defs[function.Name]
			if slices.Contains([]string{"reads.go", "explainer.go", "explain.go", "plan.go", "instancereason.go"}, name) {
				reading = append(reading, of)
			}
			ast.Inspect(function, func(node ast.Node) bool {
				if selector, ok := node.(*ast.SelectorExpr); ok && source.Info.Selections[selector] != nil {
					calls[of] = append(calls[of], source.Info.Selections[selector].Obj())
				} else if name, ok := node.(*ast.Ident); ok {
					calls[of] = append(calls[of], source.Info.Uses[name])
				}
				return true
			})
		}
	}
	reached := map[types.Object]bool{}
	for len(reading) > 0 {
		of := reading[0]
		reading = reading[1:]
		for _, called := range calls[of] {
			if function, ok := called.(*types.Func); ok && !reached[called] {
				reached[called] = true
				reading = append(reading, called)
				if slices.Contains([]string{"Emit", "Save", "Forget", "wakeBy", "touch"}, function.Name()) {
					t.Errorf("%s calls %s", of.Name(), function.Name())
				}
			}
		}
	}
	if len(reached) < 50 {
		t.Errorf("only %d functions are reached", len(reached))
	}
}
