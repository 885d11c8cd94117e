"""A script of version 1: it runs unchanged, apart from the import."""

import random
import time

from eventpy.events import Event, EventDispatcher, EventDispatchManager, EventListener


class Greeting(Event):
    def __init__(self, message, id):
        self.message = message
        self.id = id


class Farewell(Event):
    def __init__(self, message, id):
        self.message = message
        self.id = id


class Speaker(EventDispatcher):
    def __init__(self):
        super().__init__(Greeting, Farewell)

    def init(self):
        return (), {"count": [0]}

    def update(self, count):
        count[0] += 1
        if random.random() < 0.5:
            return Greeting("hello", count[0])
        return Farewell("goodbye", count[0])

    def finish(self, count):
        print("the speaker has finished")


class Hearer(EventListener):
    def __init__(self):
        super().__init__({Greeting: self.on_greeting, Farewell: self.on_farewell})

    def on_greeting(self, event):
        print("greeting", event.id, event.message)

    def on_farewell(self, event):
        print("farewell", event.id, event.message)


if __name__ == "__main__":
    manager = EventDispatchManager(Speaker(), Hearer())
    manager.deploy_dispatchers()
    for _ in range(10):
        time.sleep(0.5)
        manager.invoke_dispatch()
    manager.end_dispatchers()
    print("the manager has finished")
