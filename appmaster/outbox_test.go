package appmaster

import (
	"fmt"
	"slices"
	"testing"

	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

func TestAsksMadeTogetherGoOutInTheOrderInWhichTheyWereMade(t *testing.T) {
	o := newOutbox()
	var made []string
	for number := 1; number <= 12; number++ {
		made = append(made, fmt.Sprintf("web-%d/1", number))
		o.setAsk(&masterv1.Ask{Id: made[number-1], Count: 1})
	}
	for _, when := range []string{"at first", "on the next stream"} {
		var sent []string
		for _, ask := range o.next().GetAsks() {
			sent = append(sent, ask.GetId())
		}
		if !slices.Equal(sent, made) {
			t.Errorf("%s they went out as %v", when, sent)
		}
		o.reset()
	}
}
