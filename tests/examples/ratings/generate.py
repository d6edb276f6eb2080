#!/usr/bin/env python3
"""Writes data/users.jsonl and data/ratings.jsonl, the same on every run: python3 generate.py

About 3000 ratings over 12 minutes of rating time by 60 customers and a few strangers. Among them are ratings of the test channel, card numbers in
many spellings (none of them real), words to be taken out, ratings that come late, and records that are broken in different ways.
"""

import json
import pathlib
import random

START = 1_519_304_105_213
MINUTES = 12
RATINGS = 3000
CUSTOMERS = 60

FIRST = ["Ada", "Bela", "Carla", "Dev", "Emil", "Fatma", "Goran", "Hana", "Ines", "Jona", "Kofi", "Lena", "Milo", "Nora", "Oskar"]
LAST = ["Adler", "Brandt", "Castillo", "Dahl", "Eriksen", "Farkas", "Grant", "Holm", "Ito", "Jansen", "Keller", "Lind"]
CLUB = ["bronze"] * 5 + ["silver"] * 4 + ["gold"] * 3 + ["Platinum"] * 3
CHANNEL = ["web"] * 5 + ["iOS"] * 4 + ["android"] * 4 + ["kiosk"] * 2 + ["iOS-test"]
POOR = [
    "three hours on the tarmac and not a word from anybody",
    "my bag is on another continent",
    "the seat did not recline, the one before me did",
    "worst coffee above the clouds",
    "(expletive deleted) queue at the gate, never again",
    "what the (expletive deleted) happened to my connection",
    "cancelled twice, thanks for nothing",
]
FAIR = ["it was a flight", "landed, which is the main thing", "a bit late, friendly crew", "nothing to complain about"]
GOOD = ["the crew was lovely", "on time and smooth", "best airport lounge so far", "would fly again tomorrow", "grüße an die crew ✈"]
# Numbers that card schemes publish for tests, and the one of the project's own examples.
CARDS = ["4444333322221111", "5555555555554444", "4111111111111111", "378282246310005", "6011111111111117"]
SEPARATORS = ["-", " ", ".", "/", "\u00a0", "\u2009", " - ", ""]


def spelled(rng, number):
    separator = rng.choice(SEPARATORS)
    groups = [number[i : i + 4] for i in range(0, len(number), 4)]
    return separator.join(groups)


def message(rng, stars):
    text = rng.choice(POOR if stars < 3 else FAIR if stars == 3 else GOOD)
    if rng.random() < 0.01:
        return f"{text}. refund to {spelled(rng, rng.choice(CARDS))} please"
    return text


def line(**record):
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def users(rng):
    for number in range(1, CUSTOMERS + 1):
        first, last = rng.choice(FIRST), rng.choice(LAST)
        value = {
            "id": number,
            "first_name": first,
            "last_name": last,
            "email": f"{first}.{last}{number}@example.com".lower(),
            "gender": rng.choice(["female", "male", "other"]),
            # Customer 3 is in the first test of the manifest.
            "club_status": "Platinum" if number == 3 else rng.choice(CLUB),
            "comments": rng.choice(["", "prefers aisle seats", "vegetarian", "travels with a cello"]),
        }
        yield line(key=str(number), value=value, timestamp=START - 3_600_000 + number)


def ratings(rng):
    step = MINUTES * 60_000 / RATINGS
    for number in range(1, RATINGS + 1):
        now = START + int(number * step)
        stars = rng.choices([1, 2, 3, 4, 5], [3, 3, 3, 5, 5])[0]
        time = now - rng.randrange(0, 3000)
        if rng.random() < 0.002:
            time = now - rng.randrange(150_000, 200_000)
        user = rng.randrange(1, CUSTOMERS + 1) if rng.random() < 0.98 else rng.randrange(CUSTOMERS + 1, CUSTOMERS + 5)
        value = {
            "rating_id": number,
            "user_id": user,
            "stars": stars,
            "route_id": rng.randrange(1, 10_000),
            "rating_time": time,
            "channel": rng.choice(CHANNEL),
            "message": message(rng, stars),
        }
        if number % 997 == 0:
            # A card number where nobody looks for one: as a number, and nested.
            value["payment"] = {"card": int(rng.choice(CARDS)), "note": ["paid by " + spelled(rng, rng.choice(CARDS))]}
        record = {"key": str(user), "value": value, "timestamp": now}
        if number in (500, 1500, 2500):
            record = {"key": str(user), "value_text": json.dumps(value)[:-20], "timestamp": now}
        elif number == 700:
            value["stars"] = "five"
        elif number == 1100:
            del value["stars"]
        elif number == 1700:
            record = {"key": str(user), "value_text": "", "timestamp": now}
        elif number == 1900:
            record["headers"] = {"trace": f"checkout {spelled(rng, CARDS[0])}"}
        elif number == 2100:
            record = {"key": str(user), "value_text": json.dumps(value)[:-1] + ',"stars":1}', "timestamp": now}
        elif number == 2300:
            value["rating_time"] = now + 7 * 86_400_000
        yield line(**record)


def main():
    folder = pathlib.Path(__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    for name, lines, seed in [("users", users, 1), ("ratings", ratings, 2)]:
        (folder / f"{name}.jsonl").write_text("".join(lines(random.Random(seed))), encoding="utf-8")


main()
