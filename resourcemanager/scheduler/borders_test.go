package scheduler

import (
	"testing"

	"github.com/mammoth-os/mammoth/internal/bordertest"
)

// parts are the parts of the scheduler. What a part knows of a queue or a shape is a struct of its own in it.
var parts = []bordertest.Part{
	{Types: []string{"fleet", "totals", "filters"}, Files: []string{"fleet.go", "search.go", "label.go", "filter.go"}},
	{Types: []string{"apps"}, Files: []string{"app.go"}},
	{Types: []string{"containers"}, Files: []string{"container.go"}},
	{Types: []string{"tree", "queueSet", "queueTurn"}, Files: []string{"tree.go", "queue.go", "queuespec.go", "limit.go"}},
	{Types: []string{"backlog", "aging", "queueBacklog", "shapeBacklog"}, Files: []string{"backlog.go", "bucket.go"}},
	{Types: []string{"nominations", "queueReservations"}, Files: []string{"nominate.go", "reserve.go"}},
	{Types: []string{"preemption", "queueReclaim"}, Files: []string{"preempt.go", "victims.go", "spare.go", "notice.go", "held.go"}},
	{Types: []string{"lending"}, Files: []string{"lending.go", "lendreserve.go", "lendreturn.go"}},
	{Types: []string{"explainer"}, Files: []string{"explain.go", "never.go", "help.go", "guarantee.go"}},
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) { bordertest.Read(t, ".").Selections(t, parts) }

// Records that all parts read have more fields than a part. Their number may only fall.
func TestNoTypeIsSeveralThings(t *testing.T) {
	bordertest.Read(t, ".").Sizes(t, map[string]int{"Ask": 17, "app": 19, "container": 21, "queue": 19})
}
