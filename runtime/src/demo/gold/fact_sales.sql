WITH versions AS (
    SELECT "ProductID", "Cost", _seq, _change,
           max(_source_ts) OVER (PARTITION BY "ProductID" ORDER BY _seq) AS since,
           row_number() OVER (PARTITION BY "ProductID" ORDER BY CASE _change WHEN 'delete' THEN 1 ELSE 0 END, _seq) AS n
    FROM silver.products_changes
),
in_force AS (
    SELECT i."OrderItemID", i."ProductID", max(CASE WHEN v.since <= o."CreatedAt" THEN v._seq END) AS seq
    FROM silver.order_items i
    JOIN silver.orders o ON o."OrderID" = i."OrderID"
    JOIN versions v ON v."ProductID" = i."ProductID"
    GROUP BY i."OrderItemID", i."ProductID"
),
costs AS (
    SELECT f."OrderItemID", CASE v._change WHEN 'delete' THEN NULL ELSE v."Cost" END AS "Cost"
    FROM in_force f
    JOIN versions v ON v."ProductID" = f."ProductID" AND (v._seq = f.seq OR (f.seq IS NULL AND v.n = 1))
)
SELECT i."OrderItemID", i."OrderID", i."ProductID", p."SellerID", o."CustomerID", p."CategoryID", o."OrderDateKey",
       o."StatusID", i."Quantity", CAST(i."CurrentPrice" AS DECIMAL(18, 2)), CAST(c."Cost" AS DECIMAL(18, 2)),
       CAST(i."Quantity" * i."CurrentPrice" - i."Quantity" * c."Cost" AS DECIMAL(18, 2)),
       CAST(i."Quantity" * i."CurrentPrice" AS DECIMAL(18, 2)), paid."OrderID" IS NOT NULL
FROM silver.order_items i
LEFT JOIN silver.orders o ON o."OrderID" = i."OrderID"
LEFT JOIN silver.products p ON p."ProductID" = i."ProductID"
LEFT JOIN costs c ON c."OrderItemID" = i."OrderItemID"
LEFT JOIN (SELECT DISTINCT "OrderID" FROM silver."Payments") paid ON paid."OrderID" = i."OrderID"
