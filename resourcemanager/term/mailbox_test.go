package term

import (
	"context"
	"errors"
	"testing"
)

func TestAMailboxKeepsOrderAndTellsItsEndLast(t *testing.T) {
	box := newMailbox[int]()
	for i := range 3 {
		box.put(i)
	}
	end := errors.New("the end")
	box.close(end)
	if left := box.put(9); left != -1 {
		t.Errorf("a closed mailbox took a value: %d wait", left)
	}
	items, err := box.Next(context.Background())
	if err != nil || len(items) != 3 || items[0] != 0 || items[2] != 2 {
		t.Errorf("got %v, %v", items, err)
	}
	for range 2 {
		if _, err := box.Next(context.Background()); !errors.Is(err, end) {
			t.Errorf("then %v", err)
		}
	}
}
